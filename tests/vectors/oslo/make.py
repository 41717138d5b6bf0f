#!/usr/bin/env python3
"""Writes rows.json: what oslo.config itself makes of each text below.

    python make.py > rows.json

wants oslo.config alone (10.7.0 made the rows that are here). `agent-api/src/oslo.rs` and the files
under it must come to the same.
"""

import json
import os
import re
import tempfile

from oslo_config import cfg
from oslo_config import types

# Section, key, default: the options that every text is read for.
OPTIONS = [
    ("DEFAULT", "a", None),
    ("DEFAULT", "b", None),
    ("DEFAULT", "c", "see"),
    ("g", "a", None),
    ("g", "key", None),
    ("g", "by_default", "<$c>"),
    ("h_1", "a", None),
]

FILES = [
    # Separators, blanks, quotes.
    ("an assignment", "[DEFAULT]\na = 1"),
    ("without blanks", "[DEFAULT]\na=1"),
    ("with a colon", "[DEFAULT]\na: 1"),
    ("a colon first", "[DEFAULT]\na : x = y"),
    ("an equals sign first", "[DEFAULT]\na = x : y"),
    ("both, touching", "[DEFAULT]\na := x"),
    ("tabs", "[DEFAULT]\na\t=\t1\t"),
    ("blanks at the end", "[DEFAULT]\na = 1   \t "),
    ("blanks that are no ASCII", "[DEFAULT]\na =\u00a0\u20031\u00a0\u2003"),
    ("separators of ASCII are blanks", "[DEFAULT]\na = \x1c1\x1f"),
    ("a next line is a blank", "[DEFAULT]\na = 1\u0085\nb = 2"),
    ("a form feed starts a line", "[DEFAULT]\n\x0ca = 1"),
    ("a zero-width space is none", "[DEFAULT]\na = \u200b1"),
    ("a NUL", "[DEFAULT]\na = 1\x00"),
    ("a key of two words", "[DEFAULT]\na b = 1"),
    ("single quotes", "[DEFAULT]\na = 'x y'"),
    ("double quotes", "[DEFAULT]\na = \"x y\""),
    ("quotes keep blanks", "[DEFAULT]\na = \" x \""),
    ("quotes that differ", "[DEFAULT]\na = \"x'"),
    ("a quote at the start", "[DEFAULT]\na = \"x"),
    ("a quote at the end", "[DEFAULT]\na = x\""),
    ("a quote alone", "[DEFAULT]\na = \""),
    ("quotes of nothing", "[DEFAULT]\na = ''"),
    ("quotes in quotes", "[DEFAULT]\na = \"'x'\""),
    ("a quote in quotes", "[DEFAULT]\na = \"x\"y\""),
    ("quotes in the middle", "[DEFAULT]\na = x \"y\" z"),
    ("a backslash before a quote", "[DEFAULT]\na = \"x\\\""),
    ("empty", "[DEFAULT]\na ="),
    ("empty, with a blank", "[DEFAULT]\na = "),
    ("the word None", "[g]\nkey = None"),
    ("entities", "[g]\nkey = a&amp;b&lt;c&gt;&#34;d&#39;%s"),
    ("letters beyond ASCII", "[g]\nkey = \u00e4\u6f22\U0001f511"),
    # Comments.
    ("comments", "# x\n; y\n[DEFAULT]\n#a = 0\n;a = 0\na = 1\n# b = 2"),
    ("no comment behind a value", "[DEFAULT]\na = x # y ; z"),
    ("a value that is a comment", "[DEFAULT]\na = # x"),
    ("an indented comment continues", "[DEFAULT]\na = x\n  # y\n\t; z"),
    ("an indented comment after nothing", "[DEFAULT]\n  # x\na = 1"),
    ("a comment behind a section", "[DEFAULT] # x\na = 1"),
    # Continuation.
    ("a continuation", "[DEFAULT]\na = x\n  y"),
    ("continuations of blank and tab", "[DEFAULT]\na = x\n y\n\tz  \nb = 2"),
    ("a continuation of nothing", "[DEFAULT]\na =\n  x"),
    ("a continuation that looks like an assignment", "[DEFAULT]\na = x\n  b = y"),
    ("a continuation that looks like a section", "[DEFAULT]\na = x\n  [g]"),
    ("quotes over a continuation", "[DEFAULT]\na = \"x\n  y\""),
    ("quotes before a continuation", "[DEFAULT]\na = \"x\"\n  \"y\""),
    ("a backslash is no continuation", "[DEFAULT]\na = x\\\nb = y"),
    ("a line of blanks ends a value", "[DEFAULT]\na = x\n  \nb = 2"),
    ("a continuation after a line of blanks", "[DEFAULT]\na = x\n  \n  y"),
    ("a continuation after an empty line", "[DEFAULT]\na = x\n\n  y"),
    ("a continuation after a comment", "[DEFAULT]\na = x\n# c\n  y"),
    ("a continuation after a section", "[DEFAULT]\n  y"),
    ("a continuation at the start", "  [DEFAULT]\na = 1"),
    ("a continuation of the one before", "[DEFAULT]\na = 1\na = 2\n  3"),
    # Ends of lines.
    ("nothing", ""),
    ("empty lines", "\n\n[DEFAULT]\n\na = 1\n\n\n"),
    ("ends as on Windows", "[DEFAULT]\r\na = x\r\n  y\r\nb = 2\r\n"),
    ("carriage returns alone", "[DEFAULT]\ra = 1\rb = 2"),
    ("a line separator ends no line", "[DEFAULT]\na = 1\u2028b = 2"),
    ("a byte order mark", "\ufeff[DEFAULT]\na = 1"),
    # Sections and keys.
    ("a section twice", "[DEFAULT]\na = 1\n[g]\na = 2\n[DEFAULT]\nb = 3"),
    ("a key twice", "[DEFAULT]\na = 1\na = 2"),
    ("a key twice, in a section twice", "[g]\na = 1\n[DEFAULT]\n[g]\na = 2"),
    ("a section in capitals", "[G]\nkey = 1\n[H_1]\na = 2"),
    ("a section in both cases", "[G]\nkey = 1\n[g]\nkey = 2\n[G]\na = 3"),
    ("DEFAULT is in capitals", "[default]\na = 1\n[Default]\nb = 2"),
    ("a section with blanks", "[ g ]\nkey = 1"),
    ("a section with brackets", "[[g]]\nkey = 1"),
    ("a section with an equals sign", "[g=1]\nkey = 1"),
    ("an empty section", "[g]"),
    ("a section of nobody", "[nobody]\na = 1"),
    ("a key in capitals", "[g]\nKEY = 1"),
    ("a key with a dash", "[g]\nby-default = 1"),
    # Substitution.
    ("a reference", "[DEFAULT]\na = $b\nb = 1"),
    ("a reference in braces", "[DEFAULT]\na = x${b}y\nb = 1"),
    ("a reference in a path", "[DEFAULT]\na = /x/$b/y\nb = 1"),
    ("a reference before a dash", "[DEFAULT]\na = $b-x\nb = 1"),
    ("a reference before a dot", "[DEFAULT]\na = $b.x\nb = 1"),
    ("a reference at the end of a sentence", "[DEFAULT]\na = $b.\nb = 1"),
    ("a reference to a default", "[DEFAULT]\na = $c"),
    ("a reference to nothing", "[DEFAULT]\na = x$b"),
    ("a reference in a default", "[DEFAULT]\nc = 1"),
    ("a reference to a default of references", "[DEFAULT]\na = $g.by_default"),
    ("references in a row", "[DEFAULT]\na = $b$b${b}\nb = 1"),
    ("a reference to a reference", "[g]\na = $key\nkey = $b\n[DEFAULT]\nb = 1"),
    ("a reference to another section", "[DEFAULT]\na = $g.key\nb = ${g.key}\n[g]\nkey = 1"),
    ("a reference to another section's like", "[g]\na = $h_1.a\n[h_1]\na = 1"),
    ("a reference to one's own section", "[g]\na = $key\nkey = 1"),
    ("a reference to DEFAULT", "[g]\nkey = $b\n[DEFAULT]\nb = 1"),
    ("one's own section before DEFAULT", "[g]\nkey = $a\na = 1\n[DEFAULT]\na = 2"),
    ("one's own section, unset, before DEFAULT", "[g]\nkey = $a\n[DEFAULT]\na = 2"),
    ("DEFAULT by name", "[g]\nkey = $DEFAULT.b\n[DEFAULT]\nb = 1"),
    ("a reference to DEFAULT by way of another section", "[DEFAULT]\na = $g.c"),
    ("a reference in another section is of that section", "[DEFAULT]\nb = $g.a\n[g]\na = $key\nkey = 1"),
    ("a reference over a continuation", "[DEFAULT]\na = x\n  $b\nb = 1"),
    ("a reference in quotes", "[DEFAULT]\na = '$b'\nb = 1"),
    ("an unknown name", "[DEFAULT]\na = $nobody\nb = 1"),
    ("an unknown name that the file has", "[DEFAULT]\na = $nobody\nnobody = 1"),
    ("an unknown section", "[DEFAULT]\na = $nobody.a\n[nobody]\na = 1"),
    ("an unknown name in a section", "[DEFAULT]\na = ${g.nobody}"),
    ("a section for an option", "[DEFAULT]\na = $g"),
    ("a section for an option, from a section", "[h_1]\na = $g"),
    ("two dots", "[DEFAULT]\na = $g.key.x\n[g]\nkey = 1"),
    ("a reference in capitals", "[DEFAULT]\na = $B\nb = 1"),
    ("a section in capitals, referred to", "[DEFAULT]\na = $G.key\n[g]\nkey = 1"),
    ("a reference to itself", "[g]\nkey = $key"),
    ("a reference to itself in DEFAULT", "[DEFAULT]\na = $a"),
    ("references in a ring", "[DEFAULT]\na = $b\nb = $g.key\n[g]\nkey = $a\na = $key"),
    ("a reference to what fails", "[DEFAULT]\na = $b\nb = $nobody"),
    ("two dollars", "[g]\nkey = a$$b"),
    ("two dollars before a name", "[DEFAULT]\na = $$b\nb = 1"),
    ("three dollars", "[DEFAULT]\na = $$$b\nb = 1"),
    ("four dollars", "[DEFAULT]\na = $$$$b"),
    ("two dollars are not read again", "[DEFAULT]\na = $b\nb = $$c"),
    ("a backslash before a dollar", "[DEFAULT]\na = \\$b\nb = 1"),
    ("two backslashes before a dollar", "[DEFAULT]\na = \\\\$b\nb = 1"),
    ("a backslash between dollars", "[DEFAULT]\na = $\\$b\nb = 1"),
    ("a backslash before two dollars", "[DEFAULT]\na = \\$$b\nb = 1"),
    ("a dollar alone", "[DEFAULT]\na = $"),
    ("a dollar at the end", "[DEFAULT]\na = 5$"),
    ("a dollar before a blank", "[DEFAULT]\na = $ b\nb = 1"),
    ("a dollar before a digit", "[DEFAULT]\na = $5b"),
    ("a dollar before a dot", "[DEFAULT]\na = $.b"),
    ("a dollar before an underscore", "[DEFAULT]\na = $_"),
    ("a dollar before a letter beyond ASCII", "[DEFAULT]\na = $\u00e9"),
    ("a name up to a letter beyond ASCII", "[DEFAULT]\na = $b\u00e9\nb = 1"),
    ("an open brace", "[DEFAULT]\na = ${b\nb = 1"),
    ("a brace and a dash", "[DEFAULT]\na = ${b-x}\nb = 1"),
    ("empty braces", "[DEFAULT]\na = ${}"),
    ("blanks in braces", "[DEFAULT]\na = ${ b }\nb = 1"),
    # Lines that are nothing.
    ("no separator", "[DEFAULT]\na"),
    ("no separator, with a blank", "[DEFAULT]\na 1"),
    ("no key", "[DEFAULT]\n= 1"),
    ("no key, with a blank before", "[DEFAULT]\n\u00a0: 1"),
    ("no end of a section", "[DEFAULT\na = 1"),
    ("an open bracket alone", "[DEFAULT]\na = 1\n["),
    ("text behind a section", "[DEFAULT] x"),
    ("no name of a section", "[]\na = 1"),
    ("no section", "a = 1"),
    ("no section and no key", "= 1"),
    ("no section after comments", "# x\n\n; y\na = 1"),
    ("the third line", "[DEFAULT]\na = 1\nb\n[g]"),
]

VALUES = {
    "boolean": (
        types.Boolean(),
        ["true", "True", "TRUE", "1", "on", "On", "yes", "YES", "false", "False", "0", "off", "no",
         "No", "t", "y", "f", "n", "2", "-1", "", "None", "enabled", " true", "true\n"],
    ),
    "integer": (
        types.Integer(),
        ["0", "10", "010", "+5", "-5", " 5 ", "5\n", "1_000", "1__0", "_1", "1_", "-_1", "--5", "+",
         "0x5", "0b1", "5.0", "5e1", "5 5", "x", "None", "9223372036854775807"],
    ),
    "port": (
        types.Port(),
        ["0", "1", "9443", "65535", "65536", "-1", "http", "+80", " 80"],
    ),
    "list": (
        types.List(),
        ["", " ", "a", "a,b", "a, b", " a ,\tb ", "a,\nb", "a,", "a,,", "a, ,", ",", ",,", ",a",
         "a,,b", "a b", "\"a,b\",c", "[a,b]", "192.0.2.5:5555, [2001:db8::5]:5555"],
    ),
    "address": (
        types.IPAddress(),
        ["::", "::1", "0.0.0.0", "192.0.2.5", "2001:DB8::5", "::ffff:192.0.2.5", "::192.0.2.5",
         "1:2:3:4:5:6:7::", "::01", "::00001", "fe80::1%eth0", "[::]", "localhost", "", " ::",
         "192.0.2", "192.0.2.05", "0xc0.0.2.5", "3221225989", "192.0.2.5/24", "192.0.2.256",
         "1::2::3", "12345::", ":::"],
    ),
}


def config():
    conf = cfg.ConfigOpts()
    for section, key, default in OPTIONS:
        group = None if section == "DEFAULT" else section
        conf.register_opt(cfg.StrOpt(key, default=default), group=group)
    return conf


def file_row(name, text):
    row = {"name": name, "text": text}
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "file.conf")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        conf = config()
        try:
            conf([], default_config_files=[path])
        except cfg.ConfigFileParseError as error:
            line, what = str(error).split(f"at {path}:")[1].split(", ", 1)
            what = re.split(r": ['\"]", what)[0]  # What follows is the line itself.
            return row | {"fails": {"line": int(line), "what": what}}
        sections = conf._namespace._normalized[0]
        row["sections"] = {
            section: {key: values[-1] for key, values in keys.items()}
            for section, keys in sections.items()
        }
        row["values"], row["errors"] = {}, []
        for section, key, _ in OPTIONS:
            name = f"{section}.{key}"
            try:
                value = conf[key] if section == "DEFAULT" else conf[section][key]
            except Exception:  # Of any kind: at DEFAULT, oslo shows each as an unknown option.
                row["errors"].append(name)
                continue
            if value is not None:
                row["values"][name] = value
    return row


def value_row(kind, of, text):
    try:
        return {"kind": kind, "text": text, "value": of(text)}
    except ValueError:
        return {"kind": kind, "text": text, "value": None}


def lines(rows):
    return ",\n".join("  " + json.dumps(row) for row in rows)


if __name__ == "__main__":
    options = [{"section": s, "key": k, "default": d} for s, k, d in OPTIONS]
    files = [file_row(name, text) for name, text in FILES]
    values = [value_row(kind, of, text) for kind, (of, texts) in VALUES.items() for text in texts]
    print("{\n \"options\": [\n%s\n ],\n \"files\": [\n%s\n ],\n \"values\": [\n%s\n ]\n}"
          % (lines(options), lines(files), lines(values)))
