"""Random JSON schemas of the part that is supported, for tests: any(rng) gives one that has at least one value; and whether a value is valid."""
import builtins
import random
import re

WORDS = ["a", "ab", "name", "id", "tags", "x y", "\u00e9", "q\"q", "n"]
PATTERNS = ["^[a-z]{1,4}$", "^(foo|ba[rz])+$", "\\d{2}", "^[^a-z]{0,3}$", "^\\w+@\\w+\\.(com|org)$", "^a.?b*$", "x$", "^[\"\\\\]{1,2}$", "^\\s?\\S$"]
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "email"]


def string(r):
    kind = r.randrange(5)
    if kind == 0:
        return {"type": "string", "pattern": r.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": r.choice(FORMATS)}
    if kind == 2:
        low = r.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + r.randrange(6)}
    return {"type": "string"}


def number(r):
    s = {"type": r.choice(["integer", "number"])}
    if r.random() < 0.6:
        low = r.choice([-1000, -37, -10, -1, 0, 1, 5, 99, 12345])
        s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.7:
            s[r.choice(["maximum", "exclusiveMaximum"])] = low + r.choice([3, 10, 250, 99999])
    elif r.random() < 0.3:
        s["maximum"] = r.choice([-5, 0, 77])
    return s


def array(r, depth):
    s = {"type": "array"}
    if r.random() < 0.3:
        s["prefixItems"] = [any(r, depth - 1) for _ in range(r.randrange(1, 3))]
        if r.random() < 0.5:
            s["items"] = r.choice([False, any(r, depth - 1)])
    else:
        s["items"] = any(r, depth - 1)
    if s.get("items") is not False:
        s["minItems"] = r.randrange(3)
        s["maxItems"] = s["minItems"] + r.randrange(3)
    return s


def object_(r, depth):
    names = r.sample(WORDS, r.randrange(0, 4))
    s = {"type": "object", "properties": {n: any(r, depth - 1) for n in names}}
    s["required"] = [n for n in names if r.random() < 0.5]
    extra = r.randrange(4)
    if extra == 0:
        s["additionalProperties"] = False
    elif extra == 1:
        s["additionalProperties"] = any(r, depth - 1)
    return s


def any(r, depth=3):
    kind = r.randrange(10 if depth > 0 else 6)
    if kind < 2:
        return string(r)
    if kind < 4:
        return number(r)
    if kind == 4:
        return r.choice([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"const": r.choice([1, "c", None, True, [1, "\n"]])}])
    if kind == 5:
        return {"enum": r.sample([1, 2.5, "red", "re\"d", None, True, {"a": [1]}, "\u20ac"], r.randrange(1, 4))}
    if kind == 6:
        return {"anyOf": [any(r, depth - 1) for _ in range(r.randrange(1, 4))]}
    if kind == 7:
        return array(r, depth)
    if kind == 8 and depth == 3:
        node = {"type": "object", "properties": {"v": any(r, 1), "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["v", "next"]}
        return {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    return object_(r, depth)


def some(seed, n):
    r = random.Random(seed)
    return [any(r) for _ in range(n)]


some_of = builtins.any
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float), "integer": int}


def _same(a, b):
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _is_type(v, name):
    if isinstance(v, bool):
        return name == "boolean"
    return isinstance(v, TYPES[name]) or (name == "integer" and isinstance(v, float) and v.is_integer())


def validate(v, s, root=None):
    """Raises ValueError when the schema, of the kinds above, does not accept the value."""
    root = s if root is None else root

    def need(ok, what):
        if not ok:
            raise ValueError(f"{what}: {v!r} by {s!r}")

    if isinstance(s, bool):
        return need(s, "false")
    if "$ref" in s:
        return validate(v, root["$defs"][s["$ref"].rsplit("/", 1)[1]], root)
    if "const" in s:
        need(_same(v, s["const"]), "const")
    if "enum" in s:
        need(some_of(_same(v, x) for x in s["enum"]), "enum")
    if "anyOf" in s:
        need(some_of(_accepts(v, x, root) for x in s["anyOf"]), "anyOf")
    if "type" in s:
        need(some_of(_is_type(v, t) for t in ([s["type"]] if isinstance(s["type"], str) else s["type"])), "type")
    if isinstance(v, str):
        need(s.get("minLength", 0) <= len(v) <= s.get("maxLength", 1 << 30), "length")
        need("pattern" not in s or re.search(s["pattern"], v), "pattern")
    elif isinstance(v, (int, float)) and not isinstance(v, bool):
        need(s.get("minimum", v) <= v <= s.get("maximum", v), "bounds")
        need(("exclusiveMinimum" not in s or v > s["exclusiveMinimum"]) and ("exclusiveMaximum" not in s or v < s["exclusiveMaximum"]), "bounds")
    elif isinstance(v, list):
        need(s.get("minItems", 0) <= len(v) <= s.get("maxItems", 1 << 30), "items")
        prefix = s.get("prefixItems", [])
        for i, x in enumerate(v):
            validate(x, prefix[i] if i < len(prefix) else s.get("items", True), root)
    elif isinstance(v, dict):
        need(all(k in v for k in s.get("required", [])), "required")
        for k, x in v.items():
            validate(x, s.get("properties", {}).get(k, s.get("additionalProperties", True)), root)


def _accepts(v, s, root):
    try:
        validate(v, s, root)
    except ValueError:
        return False
    return True
