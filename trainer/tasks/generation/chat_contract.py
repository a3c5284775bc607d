"""The contract's step `chat`: the tokenizer's files, the chat template, and the rules, made from a spec and its base model."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from cluster.errors import ModelError, SpecError
from cluster.files import file_sha256, read_json, write_bytes, write_json
from trainer.chat.layouts import Planner, layout_of
from trainer.chat.new_tokenizer import CHATML
from trainer.chat.rules import TEMPLATE_FILE, ChatRules, Layout
from trainer.chat.segments import NotPrefixPreserving
from trainer.chat.sequences import NO_STOP
from trainer.chat.template import ChatTemplate, TemplateFailed
from trainer.chat.tokenizer import CONFIG_FILE, TOKENIZER_FILE, SegmentTokenizer, first_added_id, special_tokens
from trainer.models.base_model import locate_base_model, max_positions
from trainer.models.model_facts import read_config
from trainer.spec.chat import TokenizerSpec
from trainer.spec.run import RunSpec

#: The default of `data.max_length`.
DEFAULT_LENGTH = 2048
_GENERATION_CONFIG = "generation_config.json"
_TEMPLATE_KEY = "chat_template"
# A conversation that every template takes.
_PROBE = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "I am fine."}]
_PROBE_TOOLS = [
    {
        "type": "function",
        "function": {"name": "look_up", "description": "Look up.", "parameters": {"type": "object", "properties": {}}},
    }
]


def check_model(spec: RunSpec, task: str) -> None:
    """Raise `SpecError` or `ModelError` if `spec` names no model that can be trained."""
    if spec.model.base is None and spec.model.config is None:
        raise SpecError(
            f"model.base is missing; {task} starts from a pre-trained model, or from a new one of `model.config`",
            "set it to a hub id, a folder, or `package://NAME/folder`",
        )
    if spec.model.base is not None:
        if spec.model.tokenizer is not None:
            raise SpecError(
                f"model.tokenizer makes a new tokenizer, and model.base={spec.model.base!r} has its own",
                "remove `model.tokenizer`, or train a new model with `model.config`",
            )
        locate_base_model(spec.model.base)


def rules_of_base(spec: RunSpec, folder: Path) -> ChatRules:
    """Return the rules for rows of a model that starts from a base model, and write the base's files into `folder`."""
    assert spec.model.base is not None
    base = locate_base_model(spec.model.base)
    config = read_config(base)
    own_template = copy_base_files(base, folder)
    return make_rules(spec, folder, spec.data.chat.template or own_template, config, base_stop_ids(base, config))


def rules_of_new_model(spec: RunSpec, folder: Path) -> ChatRules:
    """Return the rules for rows of a new model; `folder` has its tokenizer."""
    config = {key: value for key, value in (spec.model.config or {}).items() if key == "max_position_embeddings"}
    return make_rules(spec, folder, new_template(spec), config, set())


def new_template(spec: RunSpec) -> str | None:
    """Return the chat template of a new model; None for rows without messages."""
    is_chat = layout_of_spec(spec) == "messages"
    return spec.data.chat.template or (CHATML if is_chat else None)


def tokenizer_spec(spec: RunSpec) -> TokenizerSpec:
    """Return the settings of a new model's tokenizer."""
    return spec.model.tokenizer or TokenizerSpec()


def copy_base_files(base: Path, folder: Path) -> str | None:
    """Write tokenizer.json and tokenizer_config.json of a base model into `folder`; return its chat template, or None.

    Raises `ModelError` if there is no tokenizer that can be read.
    """
    config = read_json(base / CONFIG_FILE) if (base / CONFIG_FILE).is_file() else {}
    template = _own_template(base, config)
    if (base / TOKENIZER_FILE).is_file():
        shutil.copyfile(base / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    else:
        _convert_tokenizer(base, folder)
    write_json(folder / CONFIG_FILE, {key: value for key, value in config.items() if key != _TEMPLATE_KEY})
    return template


def make_rules(
    spec: RunSpec, folder: Path, template: str | None, base_config: dict[str, Any], stops: set[int]
) -> ChatRules:
    """Return the rules for rows of `spec`, and write the template into `folder`, which holds the tokenizer's files.

    `stops` are ids that end an answer by the base model's own settings. Raises `SpecError` if the template is missing or
    cannot be learned from.
    """
    layout = layout_of_spec(spec)
    backend = SegmentTokenizer(folder)
    variables = special_tokens(folder)
    if template is not None:
        write_bytes(folder / TEMPLATE_FILE, template.encode())
    ids = {name: backend.backend.token_to_id(token) for name, token in variables.items()}
    eos_id = ids.get("eos_token")
    rules = ChatRules(
        layout=layout,
        template=hashlib.sha256(template.encode()).hexdigest() if template is not None else None,
        variables=variables,
        has_tools=False,
        learn=spec.data.chat.learn,
        overlong=spec.data.chat.overlong,
        max_length=_max_length(spec, base_config),
        first_id=first_added_id(backend.backend),
        stop_ids=sorted({*stops, *([eos_id] if eos_id is not None else [])}),
        vocab_size=max(backend.n_tokens, int(base_config.get("vocab_size") or 0)),
        bos_token_id=ids.get("bos_token"),
        eos_token_id=eos_id,
        pad_token_id=ids.get("pad_token", eos_id),
    )
    if eos_id is None and layout not in ("messages", "text"):
        raise SpecError(
            "the tokenizer has no eos_token, so a model could not learn where a completion ends",
            f"name one in {CONFIG_FILE} of the base model",
        )
    if template is None:
        if layout == "messages":
            raise SpecError(
                f"model.base={spec.model.base!r} has no chat template, and rows with messages need one",
                "set `data.chat.template` to a file with a template, or choose a model for chats",
            )
        return rules
    return _probe_template(rules, folder, template, backend)


def base_stop_ids(base: Path, config: dict[str, Any]) -> set[int]:
    """Return the ids that end an answer by the settings of a base model."""
    path = base / _GENERATION_CONFIG
    values = [config.get("eos_token_id"), (read_json(path) if path.is_file() else {}).get("eos_token_id")]
    stops: set[int] = set()
    for value in values:
        stops.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    return stops


def layout_of_spec(spec: RunSpec) -> Layout:
    """Return the layout of the rows of `spec`."""
    layout = layout_of(spec.data.columns or ("messages",))
    assert layout is not None  # checked by column_roles
    return layout


def contract_files(folder: Path) -> dict[str, str]:
    """Return the contract's files in `folder` with their SHA-256."""
    names = (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE)
    return {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}


def _max_length(spec: RunSpec, base_config: dict[str, Any]) -> int:
    asked = spec.data.max_length if "max_length" in spec.data.model_fields_set else DEFAULT_LENGTH
    return min(asked, max_positions(base_config)) if base_config else asked


def _probe_template(rules: ChatRules, folder: Path, template: str, tokenizer: SegmentTokenizer) -> ChatRules:
    """Return the rules with what the template itself says: how an answer ends, and whether it writes tools.

    Raises `SpecError` if nothing could be learned by it.
    """
    try:
        compiled = ChatTemplate(template, rules.variables)
        with_tools = compiled.render(_PROBE[:1], _PROBE_TOOLS, add_generation_prompt=True)
        without = compiled.render(_PROBE[:1], None, add_generation_prompt=True)
    except TemplateFailed as error:
        raise SpecError(f"data.chat.template: {error}", "correct the template, or use the base model's") from None
    rules = rules.model_copy(update={"has_tools": with_tools != without})
    answer = _probe_answer(rules, compiled)
    stops = {*rules.stop_ids, *_ends_of_turn(answer, tokenizer)}
    if not stops & set(tokenizer.encode([answer], follow=True)[0]):
        raise SpecError(
            f"{NO_STOP}: an answer reads {answer!r}",
            "set `data.chat.template` to one that ends an answer with a special token",
        )
    return rules.model_copy(update={"stop_ids": sorted(stops)})


def _probe_answer(rules: ChatRules, template: ChatTemplate) -> str:
    """Return how the template writes an answer, from the end of the prompt on."""
    try:
        pieces = Planner(rules, template, ()).conversation(_PROBE, None)
    except NotPrefixPreserving:
        prompt = template.render(_PROBE[:1], None, add_generation_prompt=True)
        raise SpecError(
            "the chat template is not prefix-preserving: a conversation with an answer does not begin with the prompt "
            f"that the model is given for it, which ends with {prompt[-60:]!r}",
            "set `data.chat.template` to one whose generation prompt is how an answer begins",
        ) from None
    return pieces[-1].text


def _ends_of_turn(answer: str, tokenizer: SegmentTokenizer) -> set[int]:
    """Return the ids of the first special token after the text of the probe's answer."""
    after = answer.partition(_PROBE[-1]["content"])[2]
    special = set(tokenizer.special_ids.values())
    return set([token for token in tokenizer.encode([after], follow=True)[0] if token in special][:1])


def _own_template(base: Path, config: dict[str, Any]) -> str | None:
    """Return the chat template of a base model, or None. Of several templates, the default one."""
    path = base / TEMPLATE_FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    value = config.get(_TEMPLATE_KEY)
    if isinstance(value, list):
        value = next((entry.get("template") for entry in value if entry.get("name") == "default"), None)
    return value if isinstance(value, str) else None


def _convert_tokenizer(base: Path, folder: Path) -> None:
    """Write the tokenizer.json of a base model that has its vocabulary in another format."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    except Exception as error:  # transformers raises many types
        raise ModelError(
            f"the tokenizer in {base} cannot be read: {error}", "save a tokenizer.json into this folder"
        ) from error
