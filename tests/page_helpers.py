"""An HTML page as a test reads it."""
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags that are opened and not closed, links, sources, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.sources, self.ids, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs["href"]] if "href" in attrs else []
        self.sources += [attrs["src"]] if "src" in attrs else []
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)
