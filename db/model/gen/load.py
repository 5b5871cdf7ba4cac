"""Read the definition: one JSON file per class, and the lists. No judgement here (check.py)."""
import json
import os

LISTS = ("enums.json", "errors.json", "http.json", "relations.json", "roles.json", "schema.json")


class Refused(Exception):
    """The definition is wrong; the text says where and what."""


def read(path):
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        raise Refused("%s: missing" % os.path.basename(path))
    except ValueError as fault:
        raise Refused("%s: not JSON: %s" % (os.path.basename(path), fault))


def read_all(folder):
    return {name: read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".json")}


def merge(below, above):
    """An overlay over what it lies on: objects key by key, lists one behind the other."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}
    return below + above if isinstance(below, list) and isinstance(above, list) else above


def load(folder, overlay=None):
    files = merge(read_all(folder), read_all(overlay) if overlay else {})
    for name in LISTS:
        if name not in files:
            raise Refused("%s: missing" % name)
    model = {
        "enums": files["enums.json"]["enums"],
        "enum_schema": files["enums.json"].get("schema", {}),
        "errors": files["errors.json"]["codes"],
        "relations": files["relations.json"]["relations"],
        "schema": files["schema.json"],
        "http": files["http.json"]["actions"],
        "roles": files["roles.json"],
        "classes": [dict(cls, file=name) for name, cls in files.items() if name not in LISTS],
    }
    # public classes by name, internal tables last: ids of tables are stored nowhere, names are
    model["classes"].sort(key=lambda c: (c.get("table") == "internal", str(c.get("name")).lower()))
    return model
