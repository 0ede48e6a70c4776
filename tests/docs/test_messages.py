"""What docs/pods.md says is printed is what the sources print.

A fenced line is made of strings of the sources with values in their places, and of words of other
libraries: nothing else is left of it when these are taken out.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/pods.md"
LEAST = 4  # letters of a string; shorter ones would be found anywhere

VALUE = re.compile(
    "|".join(
        (
            r"/(?:mnt/shared|local)/[\w/-]+",
            r"SIG[A-Z]+\d?",
            r"node-\d+",
            r"OSError: \[Errno \d+\] [A-Z][\w/ ]+",
            r"JSONDecodeError: Unterminated string starting at: line 1 column 2 \(char 1\)",
            r"RuntimeError: Worker process was terminated unexpectedly with exit code -9\. "
            r"Search the logs above for the source of the crash\.",  # grain's
            r"JaxRuntimeError: UNKNOWN: Gloo all-reduce failed: \[\S+\] "
            r"Connection closed by peer \[[\d.]+\]:\d+",
            # JAX's, which the tests of two hosts see.
            r"F\d+ [\d:.]+ +\d+ client\.h:80\] Terminating process because the JAX distributed "
            r"service detected fatal errors\. This most likely indicates that another task died; "
            r"see the other task logs for more details\. \[…\]",
            r" of \d+: …$",  # the rest is left out
            r"\d+",
        )
    )
)


def messages() -> list[str]:
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def fixed_parts(node: ast.AST) -> list[str]:
    """Returns the parts of a string between its values, "{value}" or "%s", and numbers."""
    if isinstance(node, ast.JoinedStr):
        texts = [x.value if isinstance(x, ast.Constant) else "\0" for x in node.values]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        texts = [node.value]
    else:
        return []
    return re.split(r"\0|%s|\d+", "".join(map(str, texts)).strip("\n"))


def strings_of(code: str) -> list[list[str]]:
    """Returns the fixed parts of all strings that have some words and are no docstrings."""
    nodes = list(ast.walk(ast.parse(code)))
    skipped = {node.value for node in nodes if isinstance(node, ast.Expr)}  # docstrings
    skipped |= {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    found = [fixed_parts(node) for node in nodes if node not in skipped]
    texts = [("".join(parts), parts) for parts in found]
    return [parts for text, parts in texts if len(re.findall(r"\w", text)) >= LEAST and " " in text]


@functools.cache
def sources() -> list[list[str]]:
    files = [ROOT / "train.py", *(ROOT / "rvrt_jax").rglob("*.py")]
    return [parts for path in files for parts in strings_of(path.read_text())]


def left_of(message: str, strings: list[list[str]]) -> list[str]:
    """Returns the parts of a message that are neither values nor of strings of the sources."""
    text = VALUE.sub("\0", message)
    left = list(text)
    for parts in strings:
        if all(part in text for part in parts):
            found = re.search(".+?".join(f"({re.escape(part)})" for part in parts), text)
            for group in range(1, len(parts) + 1) if found else ():
                start, end = found.span(group)
                left[start:end] = "\0" * (end - start)
    return [part for part in re.split("\0+", "".join(left)) if part]


@pytest.mark.parametrize("message", messages())
def test_messages_are_as_printed(message):
    assert not left_of(message, sources())


def test_what_is_not_printed_is_found():
    strings = strings_of('def f(x):\n    """Nobody sees it."""\n    print(f"step {x} is saved.")\n')
    assert left_of("step 3 is saved.", strings) == []
    assert left_of("step 3 is stored.", strings) == ["step ", " is stored."]
    assert left_of("Nobody sees it.", strings) == ["Nobody sees it."]
    said = "an error: step 3 is saved."
    assert left_of(said, strings) == ["an error: "]
    assert left_of(said, [*strings, ["an error: ", ""]]) == []
