"""`engine view`: the view service, which says who is primary and who is backup."""

from __future__ import annotations

from engine_cmd.flags import Family, client_flags, named, serve_flags, shown, token_made

EXAMPLES = """\
examples:
  engine view serve --listen ipc:///run/me/views
  engine view get --cluster ipc:///run/me/views
"""


def serve(argv: list[str]) -> int:
    """say who serves, in memory, until it is ended"""
    parser = VIEW.parser("serve", "Tell views to servers that ping, until it is ended.")
    serve_flags(parser)
    flags = parser.parse_args(argv)
    from engine.views.server import serve as serve_views

    token = token_made(flags.listen, flags.token)
    serve_views(flags.listen, token=token, as_json=flags.json)
    return 0


def get(argv: list[str]) -> int:
    """print the present view"""
    parser = VIEW.parser("get", "Print the present view: its number, its primary, its backup.")
    client_flags(parser, "the view service's address")
    flags = parser.parse_args(argv)
    from engine.views.client import Views

    address = named(flags.cluster, "VIEWS")
    with Views(address, timeout=flags.timeout, token=flags.token, via=dict(flags.via)) as views:
        view = views.get()
    if flags.json:
        found = {"number": view.number, "primary": view.primary, "backup": view.backup}
        shown({**found, "error": None})
    else:
        nobody = "nobody"
        print(f"view {view.number}: primary {view.primary or nobody}, ", end="")
        print(f"backup {view.backup or nobody}")
    return 0


VIEW = Family("view", EXAMPLES, {"serve": serve, "get": get})
main = VIEW.main
