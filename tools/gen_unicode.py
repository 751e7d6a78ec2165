#!/usr/bin/env python3
"""Writes runtime/unicode_table.c: ranges of letters, numbers and white space, from Python's own unicodedata.

usage: tools/gen_unicode.py > runtime/unicode_table.c      (the file is committed; run again for a newer Unicode)
"""
import sys
import unicodedata

SPACE = [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


def ranges(test):
    out, begin = [], None
    for c in range(0x110001):
        inside = c < 0x110000 and test(c)
        if inside and begin is None:
            begin = c
        elif not inside and begin is not None:
            out.append((begin, c - 1))
            begin = None
    return out


def table(name, what, rows):
    print(f"\n/* {what} */\nconst struct skf_range {name}[] = {{")
    line = "   "
    for a, b in rows:
        item = f" {{0x{a:x}, 0x{b:x}}},"
        if len(line) + len(item) > 116:
            print(line)
            line = "   "
        line += item
    print(line.rstrip(",") + f"\n}};\nconst size_t {name}_count = {len(rows)};")


print(f"""/*
 * Unicode {unicodedata.unidata_version}: what the pre-tokenizers ask about characters.  Written by tools/gen_unicode.py; do not edit.
 */
/* clang-format off */
#include "runtime/unicode_priv.h"
""".rstrip())
table("skf_letters", "general category L*", ranges(lambda c: unicodedata.category(chr(c))[0] == "L"))
table("skf_numbers", "general category N*", ranges(lambda c: unicodedata.category(chr(c))[0] == "N"))
table("skf_spaces", "property White_Space", ranges(lambda c: c in SPACE))
sys.stdout.flush()
