import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from agent_rl.errors import UserError
from agent_rl.view.tokens import NO_TOKENIZER, NOT_TRAINED, Tokenizers, overlay, token_texts


def byte_level():
    """One token per byte: the id is that of the byte in GPT-2's alphabet, sorted."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def metaspace():
    """Words, whose decoder drops the space before the first one."""
    tokenizer = Tokenizer(models.WordLevel({"▁Hello": 0, "▁world": 1, "?": 2}, unk_token="?"))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def test_a_character_of_several_tokens_is_shown_once():
    tokenizer = byte_level()
    ids = tokenizer.encode("aé🙂b").ids
    assert len(ids) == 8
    assert token_texts(ids, tokenizer.decode) == ["a", "é", "", "🙂", "", "", "", "b"]


def test_half_a_character_does_not_swallow_its_neighbours():
    tokenizer = byte_level()
    half = tokenizer.encode("é").ids[:1]
    assert token_texts([*half, *tokenizer.encode("ab").ids], tokenizer.decode) == ["�", "a", "b"]
    assert token_texts(half, tokenizer.decode) == ["�"]


def test_spaces_before_words_are_kept():
    assert token_texts([0, 1, 1], metaspace().decode) == ["Hello", " world", " world"]


def test_the_overlay_has_all_that_is_known_of_each_token(journal):
    [first, second] = overlay(journal, 0, 1, None)["segments"]
    assert first["ids"] == [1, 2, 3, 4, 5]
    assert first["mask"] == [0, 0, 1, 1, 0]
    assert first["logprobs"] == [None, None, -0.25, -0.25, None]
    assert first["versions"] == [None, None, 3, 3, None]
    assert first["turns"] == [None, None, 0, 0, None]
    assert first["fork"] is None
    assert first["trained"] == {
        "step": 1,
        "logprobs": [None, None, -0.5, None, None],
        "advantages": [None, None, 2.0, -2.0, None],
        "entropies": [None, None, 0.5, 1.0, None],
    }
    assert second["fork"] == {"from": 0, "at": 3}
    assert second["turns"] == [None, None, None, None, 1]
    assert second["trained"] is None


def test_what_is_missing_is_said(journal):
    found = overlay(journal, 2, 0, None)
    assert found["texts"] is None
    assert found["note"] == f"{NO_TOKENIZER} {NOT_TRAINED}"
    assert overlay(journal, 0, 0, lambda ids: "x" * len(ids)) | {"segments": []} == {
        "segments": [],
        "texts": [["x"] * 5],
        "note": "",
    }
    with pytest.raises(UserError, match="no episode 9"):
        overlay(journal, 0, 9, None)


def test_the_tokenizer_is_found_where_runs_keep_one(run_dir, tmp_path):
    tokenizers = Tokenizers()
    assert tokenizers.of(run_dir) is None
    model = tmp_path / "model"
    model.mkdir()
    byte_level().save(str(model / "tokenizer.json"))
    (run_dir / "config.json").write_text(json.dumps({"model": str(model)}))
    decode = tokenizers.of(run_dir)
    assert decode is not None
    assert decode(byte_level().encode("hi").ids) == "hi"
