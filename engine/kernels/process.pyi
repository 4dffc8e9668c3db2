"""What a process tells and asks of the kernel about itself (`ext/process.pyx`)."""

def set_title(title: str) -> None:
    """Change what `ps` shows of this process: its arguments and its short name (15 bytes).

    Cut to the room that the command line took at start. Does nothing where there is no /proc.
    """

def parent_death_signal(number: int) -> None:
    """Have the kernel send this signal to this process when the *thread* that started it ends.

    0 takes it back. A parent that ended before the call goes unnoticed: compare getppid() with the
    pid expected afterwards. OSError for what is no signal. Nothing on other systems than Linux.
    """

def beat(page: memoryview, alive: int, phase: int, phases: int, ms: int) -> None:
    """Start a thread that counts `page[alive]` up every `ms` while `page[phase]` is among `phases`.

    `page` is a writable view of uint64 words, `phases` a set of bits. The thread never takes the
    GIL, ends with the process, stands still when it is stopped, and is not copied by fork. OSError.
    """
