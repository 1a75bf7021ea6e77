"""A milter beside authmilter, by pymilter: says which fields it saw, and puts another text into messages whose subject asks for it."""

import sys

import Milter


class Other(Milter.Base):  # type: ignore[misc]
    """One connection."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rewrite = False

    def envfrom(self, mailfrom: str, *parameters: str) -> int:
        self.names, self.rewrite = [], False
        return int(Milter.CONTINUE)

    def header(self, name: str, value: str) -> int:
        self.names.append(name)
        self.rewrite = self.rewrite or (name == "Subject" and "rewrite" in value)
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        self.addheader("X-Other-Saw", " ".join(self.names))
        if self.rewrite:
            self.replacebody(b"Another text.\r\n")
        return int(Milter.CONTINUE)


if __name__ == "__main__":
    Milter.factory = Other
    Milter.set_flags(Milter.ADDHDRS + Milter.CHGBODY)
    Milter.runmilter("other", f"inet:{sys.argv[1]}@127.0.0.1", 30)
