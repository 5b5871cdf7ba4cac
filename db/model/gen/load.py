"""Read the definition: one JSON file per class, and the lists. No judgement here (check.py)."""
import json
import os

LISTS = ("alerts.json", "enums.json", "errors.json", "http.json", "relations.json", "roles.json", "schema.json")


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


def load(folder):
    model = {
        "enums": read(os.path.join(folder, "enums.json"))["enums"],
        "errors": read(os.path.join(folder, "errors.json"))["codes"],
        "relations": read(os.path.join(folder, "relations.json"))["relations"],
        "schema": read(os.path.join(folder, "schema.json")),
        "alerts": read(os.path.join(folder, "alerts.json"))["alerts"],
        "http": read(os.path.join(folder, "http.json"))["actions"],
        "roles": read(os.path.join(folder, "roles.json")),
        "classes": [],
    }
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json") and name not in LISTS:
            cls = read(os.path.join(folder, name))
            cls["file"] = name
            model["classes"].append(cls)
    # public classes by name, internal tables last: ids of tables are stored nowhere, names are
    model["classes"].sort(key=lambda c: (c.get("table") == "internal", str(c.get("name")).lower()))
    return model
