"""What the site does that GitHub does by itself: pages outside docs/ are a part of it, and links to them hold.

mkdocs calls these functions by their names. A link to a file that the site does not have becomes plain text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}  # by place in the repository -> page
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Any, config: Any) -> None:
    for place, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / place).read_text()))


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    places = {own: place for place, own in OUTSIDE.items()}
    folder = posixpath.dirname(places.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def link(found: re.Match[str]) -> str:
        mark, text, target, anchor = found.groups()
        place = posixpath.normpath(posixpath.join(folder, target))
        own = OUTSIDE.get(place, place.removeprefix("docs/"))
        if files.get_file_from_path(own) is None and not (ROOT / place).exists():
            return found[0]  # a broken link, which mkdocs is to tell of
        if files.get_file_from_path(own) is None:
            return text
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{mark}[{text}]({posixpath.relpath(own, start)}{anchor or ''})"

    return LINK.sub(link, markdown)
