"""essay"""
