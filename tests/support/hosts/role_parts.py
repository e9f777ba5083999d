"""Parts of the roles, run on this machine: single files of their tasks, as the whole asks for a host with systemd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.project.role_readmes import PROJECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROLES = PROJECT / "roles"


class RoleParts:
    """Roles whose parts can be run alone, in a directory.

    `handlers`: what stands in place of the roles' own, which speak to systemd. `prefix`: runs a command elsewhere.
    """

    def __init__(
        self, directory: Path, *roles: str, handlers: Sequence[Mapping[str, Any]] = (), prefix: Sequence[str] = ()
    ) -> None:
        self._directory = directory
        self._handlers = list(handlers)
        self._prefix = prefix
        settings = (_ROLES / role / part / "main.yml" for role in roles for part in ("defaults", "vars"))
        self._settings = [str(path) for path in settings if path.exists()]
        for role in roles:
            (directory / "roles" / role).mkdir(parents=True)
            # Without what they depend on.
            for part in ("defaults", "tasks", "templates", "vars"):
                if (source := _ROLES / role / part).is_dir():
                    (directory / "roles" / role / part).symlink_to(source)

    def play(self, *parts: tuple[str, str], **variables: object) -> str:
        """Run parts, `(role, file of tasks)`, each with what it notifies; return what was said, with the recap."""
        done = self.try_to_play(*parts, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_to_play(self, *parts: tuple[str, str], **variables: object) -> subprocess.CompletedProcess[str]:
        """Run parts that may be refused."""
        tasks: list[dict[str, Any]] = []
        for role, part in parts:
            tasks += [
                {"ansible.builtin.import_role": {"name": role, "tasks_from": part}},
                {"ansible.builtin.meta": "flush_handlers"},
            ]
        return self._run(tasks, variables)

    def write(self, role: str, template: str, to: Path, **variables: object) -> None:
        """Write a template of a role to a file."""
        source = _ROLES / role / "templates" / template
        task = {"ansible.builtin.template": {"src": str(source), "dest": str(to), "mode": "0644"}}
        done = self._run([task], variables)
        assert done.returncode == 0, done.stdout + done.stderr

    def _run(self, tasks: list[dict[str, Any]], variables: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars_files": self._settings,
            "tasks": tasks,
            "handlers": self._handlers,
        }
        (self._directory / "play.yml").write_text(json.dumps([play]))
        values = {"ansible_python_interpreter": sys.executable, **variables}
        return subprocess.run(
            [
                *self._prefix,
                Path(sys.executable).parent / "ansible-playbook",
                *("-i", "localhost,", "-e", json.dumps(values), "play.yml"),
            ],
            cwd=self._directory,
            env={**os.environ, "ANSIBLE_HOME": str(self._directory / "home"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
