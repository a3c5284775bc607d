"""Chat templates of the shapes that published models have, written for these tests."""

from __future__ import annotations

from tests.support.tiny_causal import CHAT_TEMPLATE

#: As ChatML, with spaces trimmed, a default system message, and tags around what the assistant says.
TRIMMED = (
    "{%- if messages[0]['role'] != 'system' -%}\n{{- '<|im_start|>system\nBe helpful.<|im_end|>\n' -}}\n{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\n' -}}\n"
    "{%- if message['role'] == 'assistant' -%}\n"
    "{%- generation -%}{{- message['content'] | trim + '<|im_end|>' -}}{%- endgeneration -%}{{- '\n' -}}\n"
    "{%- else -%}{{- message['content'] | trim + '<|im_end|>\n' -}}{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
#: Turns in brackets with BOS and EOS, roles that must take turns, and the system message in the first turn.
BRACKETS = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set ns = namespace(system=messages[0].content) %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set ns = namespace(system='') %}"
    "{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message.role == 'user' %}[INST] {% if loop.first and ns.system %}{{ ns.system }}\n\n{% endif %}"
    "{{ message.content }} [/INST]"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
#: The thoughts of earlier answers are left out once the user goes on: not prefix-preserving.
FORGETS_THOUGHTS = (
    "{%- set last = namespace(user=0) %}{%- for message in messages %}{%- if message.role == 'user' %}"
    "{%- set last.user = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- set content = message.content %}{%- if message.role == 'assistant' and loop.index0 > last.user %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
#: The end of a turn is no token of its own, so a model would never stop.
NEVER_STOPS = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
#: The generation prompt is not how an answer begins.
OTHER_PROMPT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
PREFIX_PRESERVING = {"chatml": CHAT_TEMPLATE, "trimmed": TRIMMED, "brackets": BRACKETS}
