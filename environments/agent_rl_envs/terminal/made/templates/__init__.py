"""All templates by name, and the programs that some need beside bash, coreutils and Python."""

from collections.abc import Callable, Mapping

from agent_rl_envs.terminal.made.draft import Dice, Draft
from agent_rl_envs.terminal.made.templates import data, files, projects

TEMPLATES: Mapping[str, Callable[[Dice], Draft]] = {
    "count_files": files.count_files,
    "permissions": files.permissions,
    "links": files.links,
    "checksums": files.checksums,
    "duplicates": files.duplicates,
    "archive": files.archive,
    "log_analysis": data.log_analysis,
    "records_to_json": data.records_to_json,
    "database_to_csv": data.database_to_csv,
    "join_tables": data.join_tables,
    "schedule": data.schedule,
    "fix_script": projects.fix_script,
    "fix_makefile": projects.fix_makefile,
    "fix_package": projects.fix_package,
    "git_restore": projects.git_restore,
}
NEEDS: Mapping[str, tuple[str, ...]] = {"fix_makefile": ("make",), "git_restore": ("git",)}
