"""HTML and XML as trees of dicts and lists, so that paths name elements and attributes.

An element is a dict: `@name` for each attribute, `#text` for its own text (blanks folded), each child's tag with
the list of the children of that tag, and `#order` where children of several tags take turns. Comments and
processing instructions are left out: no client acts on them.

lxml reads it, told to fetch nothing, to know no DTD and to leave entities as they are, so that no document can
make it read a file or grow; it refuses trees too deep or texts too large on its own.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

Tree = dict[str, Any]


def parse(body: bytes, html: bool, charset: str) -> Tree:
    """The root element under its tag. `ValueError` where it does not parse."""
    try:
        root = etree.fromstring(body, _parser(html, charset))
    except LookupError:
        root = etree.fromstring(body, _parser(html, ""))  # a charset that nobody knows
    except (etree.LxmlError, SyntaxError) as error:
        raise ValueError(str(error)) from None
    if root is None:
        raise ValueError("it has no element")
    return {_name(root.tag): _element(root)}


def _parser(html: bool, charset: str) -> Any:
    encoding = charset or None
    if html:
        return etree.HTMLParser(encoding=encoding or "utf-8", no_network=True, huge_tree=False)
    return etree.XMLParser(
        encoding=encoding, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )


def _element(element: Any) -> Tree:
    tree: Tree = {f"@{_name(name)}": value for name, value in element.attrib.items()}
    children = [child for child in element if isinstance(child.tag, str)]
    text = " ".join(_texts(element))
    if text:
        tree["#text"] = text
    for child in children:
        tree.setdefault(_name(child.tag), []).append(_element(child))
    tags = [_name(child.tag) for child in children]
    if len(set(tags)) > 1:
        tree["#order"] = " ".join(tags)
    return tree


def _texts(element: Any) -> list[str]:
    pieces = [element.text]
    for child in element:
        if child.tag is etree.Entity:
            pieces.append(child.text)
        pieces.append(child.tail)
    return [" ".join(piece.split()) for piece in pieces if piece and not piece.isspace()]


def _name(name: str) -> str:
    """`{namespace}local` without the namespace's address: prefixes and addresses are how, not what."""
    return name.rpartition("}")[2]
