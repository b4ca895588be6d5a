"""The files of the site of the documentation.

A file has the same path on the site as in the repository, so that links between files work in both places. MkDocs calls
the functions ``on_...``. The site has README.md, CHANGELOG.md, CONTRIBUTING.md, ``docs/``, and the pages and figures of
``benchmarks/``. A link to another file of the repository leads to ``repo_url``. Without ``repo_url``, the site shows
the text of this link without the link.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from nemo_squeezeformer.__main__ import build_parser

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*", "benchmarks/**/*"]
SUFFIXES = {".md", ".ipynb", ".png", ".svg"}
LINK = re.compile(r"(?<!!)\[([^\[\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
NOT_RUN = re.compile(r"^(```\w+) not-run: .*$", re.MULTILINE)  # for the tests; Markdown for the site has no such words
HELP = re.compile(r"^\{\{ help ([\w-]+) \}\}$", re.MULTILINE)


@event_priority(100)  # before the plugin that converts notebooks
def on_files(files: Files, config: Any) -> Files:
    """Replace the files of ``docs_dir`` by the files of ``PAGES``; the theme's files stay."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    found = sorted({path for pattern in PAGES for path in ROOT.glob(pattern) if path.suffix in SUFFIXES})
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return Files(theme + [File(name, str(ROOT), config.site_dir, config.use_directory_urls) for name in names])


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Change the links to files that are not on the site, and insert the help of commands."""
    folder = (ROOT / page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups(default="")
        path = (folder / target).resolve()
        if "://" in target or not path.exists():
            return match.group()
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir() and files.get_file_from_path(f"{name}/README.md"):
            return f"[{text}]({target.rstrip('/')}/README.md{anchor})"
        if files.get_file_from_path(name):
            return match.group()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{name}{anchor})" if config.repo_url else text

    markdown = NOT_RUN.sub(r"\1", LINK.sub(link, markdown))
    return HELP.sub(lambda match: f"```text\n{command_help(match.group(1))}```", markdown)


def command_help(command: str) -> str:
    """What ``nemo-squeezeformer COMMAND --help`` prints on a terminal of 100 columns."""
    os.environ["COLUMNS"] = "100"
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return str(commands.choices[command].format_help())
