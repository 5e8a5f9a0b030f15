"""Documentation that is run: the blocks of a page, in their order.

A block of Lua that begins with `-- name.lua` is that file; one that begins with `-- name.lua, line N` is
that line of it. In a block of the console, lines that begin with `$ ` are commands, and what stands behind
each is what it prints; `...` there is any text."""
import re
import shlex

BLOCK = re.compile(r"^```(lua|console)\n(.*?)^```$", re.M | re.S)
NAME = re.compile(r"-- (\S+\.lua)(?:, line (\d+))?\n")


class File:
    def __init__(self, name, line, text):
        self.name, self.line, self.text = name, line, text

    def write(self, folder):
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.line is None:
            path.write_text(self.text)
            return
        lines = path.read_text().splitlines()
        lines[self.line - 1] = self.text.split("\n", 1)[1].rstrip("\n")
        path.write_text("\n".join(lines) + "\n")


class Command:
    def __init__(self, line, printed):
        self.words, self.printed = shlex.split(line), printed

    def matches(self, output):
        """Whether that is what the page says: white space at the ends of lines does not count."""
        wanted = ".*".join(re.escape(part) for part in self.printed.split("..."))
        lines = "\n".join(line.rstrip() for line in output.strip().splitlines())
        return re.fullmatch(wanted, lines, re.S) is not None


def steps(page):
    """The files and commands of a page. Lua without a name is not taken."""
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "lua":
            named = NAME.match(text)
            if named:
                line = named.group(2)
                yield File(named.group(1), line and int(line), text)
            continue
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            yield Command(command, printed.strip())
