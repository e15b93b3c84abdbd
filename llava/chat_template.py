"""A conversation template as the Jinja chat template of transformers' tokenizers and processors."""

import json

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation, SeparatorStyle

# Content is a string or parts; images come first, each on its own line, as in training.
_CONTENT = (
    "{%- macro content(message) -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ IMAGE }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
)
_SYSTEM = (
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set system = SYSTEM_PREFIX ~ content(messages[0]) -%}{%- set turns = messages[1:] -%}"
    "{%- else -%}{%- set system = SYSTEM -%}{%- set turns = messages -%}{%- endif -%}"
)
_LOOP = (
    "{%- for message in turns -%}"
    "{%- if message['role'] == 'user' -%}{USER}{%- else -%}{ASSISTANT}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{OPEN}{%- endif -%}"
)


def chat_template(template: Conversation) -> str | None:
    """Jinja that renders messages of the roles system, user and assistant; None for captions."""
    style, sep, sep2 = template.sep_style, template.sep, template.sep2
    system, system_prefix = template.system, ""
    human, assistant = template.roles
    text = "content(message)"
    if style in (SeparatorStyle.TWO, SeparatorStyle.SINGLE):
        stop = sep2 if style is SeparatorStyle.TWO else sep
        head = f"{{{{ system ~ {_quoted(sep)} }}}}"
        user = f"{{{{ {_quoted(f'{human}: ')} ~ {text} ~ {_quoted(sep)} }}}}"
        answer = f"{{{{ {_quoted(f'{assistant}: ')} ~ {text} ~ {_quoted(stop)} }}}}"
        opening = f"{{{{ {_quoted(f'{assistant}:')} }}}}"
    elif style is SeparatorStyle.MPT:
        system_prefix = "<|im_start|>system\n"
        head = f"{{%- if system -%}}{{{{ system ~ {_quoted(sep)} }}}}{{%- endif -%}}"
        user = f"{{{{ {_quoted(human)} ~ {text} ~ {_quoted(sep)} }}}}"
        answer = f"{{{{ {_quoted(assistant)} ~ {text} ~ {_quoted(sep)} }}}}"
        opening = f"{{{{ {_quoted(assistant)} }}}}"
    elif style is SeparatorStyle.LLAMA_2:
        head = ""
        wrapped = f"'<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ {text} if loop.first and system else {text}"
        start = f"{{%- if not loop.first -%}}{{{{ {_quoted(sep)} }}}}{{%- endif -%}}"
        user = f"{start}{{{{ '[INST] ' ~ ({wrapped}) ~ ' [/INST]' }}}}"
        answer = f"{{{{ ' ' ~ {text} ~ {_quoted(f' {sep2}')} }}}}"
        opening = ""
    else:
        return None
    loop = _LOOP.replace("{USER}", user).replace("{ASSISTANT}", answer).replace("{OPEN}", opening)
    # SYSTEM_PREFIX before SYSTEM, which is a part of it.
    whole = (_CONTENT + _SYSTEM + head + loop).replace("SYSTEM_PREFIX", _quoted(system_prefix))
    return whole.replace("SYSTEM", _quoted(system)).replace("IMAGE", _quoted(f"{DEFAULT_IMAGE_TOKEN}\n"))


def _quoted(text: str | None) -> str:
    """A Jinja string literal."""
    return json.dumps(text or "", ensure_ascii=False)
