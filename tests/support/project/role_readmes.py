"""Write the READMEs of the roles from their argument specs; with `--check` say which differ from them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT: Final = Path(__file__).parents[3]


def roles() -> list[Path]:
    """Return the directories of all roles."""
    return sorted(path for path in (PROJECT / "roles").iterdir() if path.is_dir())


def rendered(role: Path) -> str:
    """Return the README that belongs to the role."""
    galaxy, meta = _yaml(PROJECT / "galaxy.yml"), _yaml(role / "meta/main.yml")
    entries: dict[str, Any] = _yaml(role / "meta/argument_specs.yml")["argument_specs"]
    main = entries.pop("main")
    parts = [
        f"# {role.name}",
        f"{main['short_description']}.",
        *_prose(main["description"]),
        *_dependencies(meta),
        "## Variables",
        "\n".join(
            [
                "| variable | type | default | meaning |",
                "|---|---|---|---|",
                *_rows(main.get("options", {}), prefix=""),
            ]
        ),
    ]
    if entries:
        listed = [
            f"- `tasks_from: {name}`: {' '.join(_prose(entry['description']))}" for name, entry in entries.items()
        ]
        parts += ["## Other entry points", "\n".join(listed)]
    if tags := _tags(role):
        parts += ["## Tags", "\n".join(tags)]
    name = f"{galaxy['namespace']}.{galaxy['name']}.{role.name}"
    platforms = ", ".join(f"{p['name']} ({', '.join(p['versions'])})" for p in meta["galaxy_info"]["platforms"])
    parts += [
        "## Use",
        f"```yaml\n- hosts: all\n  roles:\n    - role: {name}\n```",
        f"Made for {platforms}; needs ansible-core {meta['galaxy_info']['min_ansible_version']} or later.",
        "<!-- Written by `make readmes` from meta/argument_specs.yml: change it there. -->",
    ]
    return "\n\n".join(parts) + "\n"


def drifted() -> list[Path]:
    """Return the READMEs that are missing or differ from what belongs there."""
    readmes = {role / "README.md": rendered(role) for role in roles()}
    return [path for path, text in readmes.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _prose(description: str | list[str]) -> list[str]:
    paragraphs = [description] if isinstance(description, str) else description
    # Ansible's markup of code; a bar would end a cell of the table.
    return [re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", text).replace("|", "\\|") for text in paragraphs]


def _dependencies(meta: dict[str, Any]) -> Iterator[str]:
    names = [entry["role"] for entry in meta.get("dependencies", [])]
    if names:
        links = ", ".join(f"[{name}](../{name}/README.md)" for name in names)
        yield f"It depends on {links}, whose variables hold here too."


def _rows(options: dict[str, Any], *, prefix: str) -> Iterator[str]:
    for name, option in options.items():
        is_list = option["type"] == "list"
        kind = f"list of {option['elements']}" if is_list else option["type"]
        default = f"`{_default(option['default'])}`" if "default" in option else "none"
        if option.get("required"):
            default = "required"
        meaning = " ".join(_prose(option["description"]))
        if choices := option.get("choices"):
            meaning = f"One of {', '.join(f'`{choice}`' for choice in choices)}. {meaning}"
        yield f"| `{prefix}{name}` | {kind} | {default} | {meaning} |"
        yield from _rows(option.get("options", {}), prefix=f"{prefix}{name}{'[]' if is_list else ''}.")


def _default(value: object) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|")


def _tags(role: Path) -> list[str]:
    """Say for each tag what runs under it."""
    phases: dict[str, list[str]] = {}
    for task in _yaml(role / "tasks/main.yml"):
        for tag in task.get("tags", []):
            phases.setdefault(tag, []).append(task["name"])
    return [
        f"- `{tag}`: {'everything' if tag == role.name else '; '.join(names).lower()}"
        for tag, names in phases.items()
    ]


def main() -> int:
    """Return the exit code: 1 if `--check` found a README that differs."""
    if sys.argv[1:] == ["--check"]:
        for path in drifted():
            print(
                f"{path.relative_to(PROJECT)} is not what meta/argument_specs.yml says: make readmes", file=sys.stderr
            )
        return bool(drifted())
    for role in roles():
        (role / "README.md").write_text(rendered(role), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
