"""The reference's database file, read by the rules of its format and by nothing of ours. Standard library only."""
import re
import xml.etree.ElementTree

ESCAPES = {".": " ", "t": "\t", "n": "\n", "r": "\r", "%": "%"}


def unprotect(text):
    assert not re.search(r"\s", text), "a space that is not protected: %r" % text[:80]
    return re.sub(r"%(.)", lambda m: ESCAPES[m.group(1)], text)


def expression(text):
    """S-expression -> nested lists of strings."""
    tokens = re.findall(r"'((?:[^'\\]|\\.)*)'|([()])|([^\s()']+)", text, re.S)
    stack = [[]]
    for quoted, paren, bare in tokens:
        if paren == "(":
            stack.append([])
        elif paren == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            assert not bare, "what is not quoted: %s" % bare
            stack[-1].append(re.sub(r"\\(.)", r"\1", quoted, flags=re.S))
    assert len(stack) == 1 and len(stack[0]) == 1, text[:80]
    return stack[0][0]


def value(text, like):
    """As the API shows a value of that kind."""
    if isinstance(like, dict):
        pairs = expression(text)
        assert all(len(pair) == 2 for pair in pairs), text[:80]
        some = next(iter(like.values()), "")
        return {key: value(item, some) for key, item in pairs}
    if isinstance(like, list):
        return [value(item, like[0]) for item in expression(text)] if like else expression(text)
    if isinstance(like, bool):
        return {"true": True, "false": False}[text]
    if isinstance(like, (int, float)):
        return type(like)(text)
    return text


class Dump:
    """manifest: name -> value; tables: class -> ref -> column -> text."""

    def __init__(self, data):
        root = xml.etree.ElementTree.fromstring(data)
        assert root.tag == "database" and root[0].tag == "manifest", root.tag
        self.manifest = {pair.attrib["key"]: pair.attrib["value"] for pair in root[0]}
        self.tables = {}
        for table in root[1:]:
            assert table.tag == "table" and list(table.attrib) == ["name"] and table.attrib["name"] not in self.tables
            rows = self.tables[table.attrib["name"]] = {}
            for row in table:
                assert row.tag == "row" and not row.text and len(row) == 0
                columns = dict(row.attrib)
                ref = columns.pop("ref")
                assert columns["_ref"] == ref and ref not in rows
                assert 0 < int(columns["__ctime"]) <= int(columns["__mtime"]) <= int(self.manifest["generation_count"])
                rows[ref] = {column: unprotect(text) for column, text in columns.items()}
