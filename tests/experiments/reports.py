"""What a written report says: its page as a browser finds it, its table as Markdown has it."""

import html.parser
import re


class Page(html.parser.HTMLParser):
    """What a browser finds in a page; fails on a tag that is not closed, or closed in the wrong place."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.text, self.cells = [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def every(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def table_of(folder):
    """The rows of report.md, split at bars that are not escaped."""
    lines = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][2:]
