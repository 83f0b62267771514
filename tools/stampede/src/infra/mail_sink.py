"""Keeps each mail as it came, as a file of a Maildir.

The handler that aiosmtpd has for this takes every mail apart and puts it together again, which is a third of its work.
"""

import itertools
import os
import time


class Maildir:
    def __init__(self, folder):
        self.folder = folder
        self.numbers = itertools.count(1)
        for part in ("tmp", "new", "cur"):
            os.makedirs(os.path.join(folder, part), mode=0o700, exist_ok=True)

    @classmethod
    def from_cli(cls, parser, *args):
        if len(args) != 1:
            parser.error("expected the folder of the Maildir")
        return cls(args[0])

    async def handle_DATA(self, server, session, envelope):
        # Written beside and then moved: a mail in `new` is always whole.
        name = f"{time.time_ns()}.P{os.getpid()}Q{next(self.numbers)}.stampede"
        written = os.path.join(self.folder, "tmp", name)
        with open(written, "xb") as mail:
            mail.write(envelope.original_content)
        os.rename(written, os.path.join(self.folder, "new", name))
        return "250 OK"
