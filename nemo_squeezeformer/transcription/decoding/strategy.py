"""The decoding strategy of a CTC or transducer model: beam search, a language model, hotwords and confidence.

NeMo's strategies have different features. A combination that no strategy has is an error here, because some strategies
of NeMo ignore settings without a message.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.transcription.decoding import arpa, ngram_file, token_ids

GREEDY = ("greedy", "greedy_batch")
# The mean over the tokens of a word, of the probability of each token. benchmarks/results/decoding.md compares this
# kind of confidence with other kinds.
CONFIDENCE = {
    "preserve_token_confidence": True,
    "aggregation": "mean",
    "method_cfg": {"name": "max_prob", "alpha": 1.0},
}


class Decoding(NamedTuple):
    """The requested decoding. The names are the names of the options of ``transcribe``.

    Attributes:
        beam: the number of hypotheses of a beam search; 1 for a greedy decoding; None for the model's own choice.
        lm: the path of an ARPA file or of a .nemo file with an n-gram model of tokens, or None.
        lm_weight: the factor of the log-probabilities of the language model.
        boost: phrases whose tokens get a higher score.
        boost_weight: the factor of the scores of the phrases.
        confidence: keep the confidence of each token.
    """

    beam: int | None = None
    lm: str | None = None
    lm_weight: float = 0.0
    boost: tuple[str, ...] = ()
    boost_weight: float = 0.0
    confidence: bool = False

    @property
    def first_option(self) -> str:
        """The name of the first requested option without ``--``, or an empty string."""
        asked = {"beam": self.beam, "lm": self.lm, "boost": self.boost, "confidence": self.confidence}
        return next((name for name, value in asked.items() if value), "")


def set_decoding(model: Any, asked: Decoding, timestamps: bool = False) -> None:
    """Set the strategy of the current decoder of ``model``. Other settings of the decoder stay unchanged.

    Args:
        model: a NeMo ASR model. For a hybrid model, first choose the decoder.
        asked: the requested decoding. If nothing is requested, the function does nothing.
        timestamps: timestamps are also requested.

    Raises:
        UserError: NeMo has no strategy with all requested features, the language model does not fit the model, or the
            model has no token for a part of a phrase.
    """
    from omegaconf import OmegaConf

    if not asked.first_option:
        return
    require_ctc_or_transducer(model, f"--{asked.first_option}", f"leave out --{asked.first_option}")
    settings: dict[str, Any] = OmegaConf.to_container(_current(model), resolve=True)  # type: ignore[assignment]
    kind = kind_of(model)
    strategy = _strategy(settings, asked, kind)
    _refuse(asked, kind, strategy, settings["strategy"], timestamps or bool(settings.get("compute_timestamps")))
    settings["strategy"] = strategy
    section = settings.setdefault("greedy" if strategy in GREEDY else "beam", {})
    if strategy not in GREEDY:
        section |= {"return_best_hypothesis": True, "beam_size": asked.beam or section["beam_size"]}
        if kind == "transducer":
            _check_beam(section, strategy, token_ids.vocabulary_size(model) + 1)
        for mode in ("pruning_mode", "blank_lm_score_mode"):  # NeMo saves the names of these modes in capital letters
            if mode in section:
                section[mode] = str(getattr(section[mode], "value", section[mode])).lower()
        if asked.beam and kind == "ctc":
            section["beam_beta"] = 0.0  # NeMo's default is a bonus for each token, which inserts wrong words
    if asked.lm:
        ngram_file.check(asked.lm, token_ids.vocabulary_size(model))
        section |= {"ngram_lm_model": asked.lm, "ngram_lm_alpha": asked.lm_weight}
        if kind == "ctc" and strategy not in GREEDY:
            section |= {"kenlm_path": None, "beam_alpha": None}  # these old names would replace the new names
    if asked.boost:
        _check_phrases(model, asked.boost)
        section |= {"boosting_tree": {"key_phrases_list": list(asked.boost)}, "boosting_tree_alpha": asked.boost_weight}
    if asked.confidence:
        settings["confidence_cfg"] = CONFIDENCE | {"preserve_word_confidence": token_ids.has_subwords(model)}
    decoder = {"decoder_type": model.cur_decoder} if hasattr(model, "cur_decoder") else {}
    try:
        model.change_decoding_strategy(OmegaConf.create(settings), **decoder, verbose=False)
    except NotImplementedError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--{asked.first_option}: {reason}; leave out --{asked.first_option}") from error
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        if not asked.lm:
            raise
        raise UserError(
            f"--lm {asked.lm}: NeMo cannot read the n-grams ({type(error).__name__}: {error}); {arpa.REMEDY}"
        ) from error


def require_ctc_or_transducer(model: Any, called: str, remedy: str) -> None:
    """Raise UserError if ``model`` is neither a CTC model nor a transducer. ``called`` begins the message."""
    from nemo.collections.asr.models import EncDecCTCModel, EncDecRNNTModel

    if not isinstance(model, (EncDecCTCModel, EncDecRNNTModel)):
        raise UserError(
            f"{called}: a model of class {type(model).__name__} is neither a CTC model nor a transducer; {remedy}"
        )


def kind_of(model: Any) -> str:
    """Return the kind of the current decoder: ``ctc`` or ``transducer``."""
    if hasattr(model, "cur_decoder"):
        return "ctc" if model.cur_decoder == "ctc" else "transducer"
    return "transducer" if hasattr(model, "joint") else "ctc"


def decoding_of(model: Any) -> Any:
    """Return NeMo's object for the current decoder of ``model``."""
    return model.ctc_decoding if getattr(model, "cur_decoder", "") == "ctc" else model.decoding


def _current(model: Any) -> Any:
    return model.cfg.aux_ctc.decoding if getattr(model, "cur_decoder", "") == "ctc" else model.cfg.decoding


def _strategy(settings: dict[str, Any], asked: Decoding, kind: str) -> str:
    """Return NeMo's strategy. The model's own strategy stays if it has the requested features."""
    own = settings["strategy"]
    if asked.beam == 1 or (asked.beam is None and own in GREEDY):
        return "greedy_batch"
    batched = ("beam_batch",) if kind == "ctc" else ("malsd_batch", "maes_batch")
    return own if own in batched else batched[0]


def _refuse(asked: Decoding, kind: str, strategy: str, own: str, timestamps: bool) -> None:
    if strategy in GREEDY:
        return
    remedy = "leave out --beam" if asked.beam and own in GREEDY else "pass --beam 1"
    if asked.confidence:
        raise UserError(f"--confidence: NeMo's beam search gives no confidence; {remedy}")
    if timestamps and kind == "ctc":
        raise UserError(
            f"--timestamps, or a --format with times: NeMo's beam search with CTC gives no times; {remedy}, or pass "
            "--decoder rnnt if the model is a hybrid model"
        )


def _check_beam(section: dict[str, Any], strategy: str, outputs: int) -> None:
    """Refuse a beam for which NeMo takes more outputs of the joint network than it has."""
    beam: int = section["beam_size"]
    most = outputs - (section.get("maes_expansion_beta", 2) if strategy == "maes_batch" else 0)
    if beam > most:
        raise UserError(
            f"--beam {beam}: the beam search of a transducer keeps at most {most} texts, because the model has "
            f"{outputs} outputs; pass --beam {most} or less"
        )


def _check_phrases(model: Any, phrases: tuple[str, ...]) -> None:
    if not token_ids.has_subwords(model):
        raise UserError(
            "--boost: NeMo's hotwords need a model with sub-word units, but the tokens of the model are characters; "
            "use a model that was trained with a tokenizer, or pass --lm with sentences that contain the words"
        )
    for phrase in phrases:
        ids, unknown = token_ids.ids_of(model, phrase)
        if unknown or not ids:
            raise UserError(
                f"--boost {phrase}: the model has no token for a part of {unknown or phrase!r}; write the phrase "
                "in the same way as the training transcripts"
            )
