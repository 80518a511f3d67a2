"""Floor 3, what a model may do: definitions beside their handlers. Its public names are handed on lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from power_loop.contracts.lazy_names import lazy_names

if TYPE_CHECKING:
    from power_loop.contracts.choices import choice_of as choice_of
    from power_loop.contracts.permissions import Permission as Permission
    from power_loop.contracts.permissions import PermissionMode as PermissionMode
    from power_loop.contracts.permissions import PermissionRule as PermissionRule
    from power_loop.contracts.tools import InTransaction as InTransaction
    from power_loop.contracts.tools import SessionLog as SessionLog
    from power_loop.contracts.tools import ToolContext as ToolContext
    from power_loop.contracts.tools import ToolDefinition as ToolDefinition
    from power_loop.contracts.tools import ToolResource as ToolResource
    from power_loop.contracts.tools import ToolResult as ToolResult
    from power_loop.contracts.tools import ToolTransaction as ToolTransaction
    from power_loop.contracts.tools import Waiting as Waiting
    from power_loop.tools.ask_user import ask_user_tools as ask_user_tools
    from power_loop.tools.background import background_tools as background_tools
    from power_loop.tools.bash import bash_tools as bash_tools
    from power_loop.tools.blackboard import blackboard_tools as blackboard_tools
    from power_loop.tools.decorator import tool as tool
    from power_loop.tools.memory import memory_tools as memory_tools
    from power_loop.tools.notes import NotesPolicy as NotesPolicy
    from power_loop.tools.notes import notes_tools as notes_tools
    from power_loop.tools.permissions import PermissionPolicy as PermissionPolicy
    from power_loop.tools.presets import ToolPreset as ToolPreset
    from power_loop.tools.presets import explore_tools as explore_tools
    from power_loop.tools.presets import file_tools as file_tools
    from power_loop.tools.presets import tool_preset as tool_preset
    from power_loop.tools.recall import recall_tools as recall_tools
    from power_loop.tools.registry import ToolRegistry as ToolRegistry
    from power_loop.tools.skill_folders import LoadedSkill as LoadedSkill
    from power_loop.tools.skill_folders import SkillCatalogue as SkillCatalogue
    from power_loop.tools.skill_folders import SkillProblem as SkillProblem
    from power_loop.tools.skill_folders import Skills as Skills
    from power_loop.tools.skill_head import Skill as Skill
    from power_loop.tools.skills import skill_tools as skill_tools
    from power_loop.tools.todo import TodoPolicy as TodoPolicy
    from power_loop.tools.todo import todo_tools as todo_tools
    from power_loop.tools.wakeups import WakeupPolicy as WakeupPolicy
    from power_loop.tools.wakeups import wakeup_tools as wakeup_tools

#: Where each public name lives. It is imported when it is asked for, so importing the package costs next to nothing.
_HOMES: dict[str, str] = {
    "InTransaction": "power_loop.contracts.tools",
    "LoadedSkill": "power_loop.tools.skill_folders",
    "NotesPolicy": "power_loop.tools.notes",
    "Permission": "power_loop.contracts.permissions",
    "PermissionMode": "power_loop.contracts.permissions",
    "PermissionPolicy": "power_loop.tools.permissions",
    "PermissionRule": "power_loop.contracts.permissions",
    "SessionLog": "power_loop.contracts.tools",
    "Skill": "power_loop.tools.skill_head",
    "SkillCatalogue": "power_loop.tools.skill_folders",
    "SkillProblem": "power_loop.tools.skill_folders",
    "Skills": "power_loop.tools.skill_folders",
    "TodoPolicy": "power_loop.tools.todo",
    "ToolContext": "power_loop.contracts.tools",
    "ToolDefinition": "power_loop.contracts.tools",
    "ToolPreset": "power_loop.tools.presets",
    "ToolRegistry": "power_loop.tools.registry",
    "ToolResource": "power_loop.contracts.tools",
    "ToolResult": "power_loop.contracts.tools",
    "ToolTransaction": "power_loop.contracts.tools",
    "Waiting": "power_loop.contracts.tools",
    "WakeupPolicy": "power_loop.tools.wakeups",
    "ask_user_tools": "power_loop.tools.ask_user",
    "background_tools": "power_loop.tools.background",
    "bash_tools": "power_loop.tools.bash",
    "blackboard_tools": "power_loop.tools.blackboard",
    "choice_of": "power_loop.contracts.choices",
    "explore_tools": "power_loop.tools.presets",
    "file_tools": "power_loop.tools.presets",
    "memory_tools": "power_loop.tools.memory",
    "notes_tools": "power_loop.tools.notes",
    "recall_tools": "power_loop.tools.recall",
    "skill_tools": "power_loop.tools.skills",
    "todo_tools": "power_loop.tools.todo",
    "tool": "power_loop.tools.decorator",
    "tool_preset": "power_loop.tools.presets",
    "wakeup_tools": "power_loop.tools.wakeups",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:
    __getattr__ = lazy_names(globals(), _HOMES)


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
