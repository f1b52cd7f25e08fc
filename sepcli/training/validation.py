"""Scores of a model on a fixed data set, during and after training."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from sepcli import losses
from sepcli.data import datasets
from sepcli.data.datasets import Items
from sepcli.losses import spectral, waveforms
from sepcli.nn.model import Model
from sepcli.training.settings import Settings

EXAMPLES = 2  # items of a validation to listen to
CLEAN_DB = 60.0  # SI-SDR of mixtures that are their reference, but for rounding
MEASURES = {
    "si_sdr_db": waveforms.si_sdr,
    "snr_db": waveforms.snr,
    "rms_ratio_db": waveforms.level_ratio,
}
OF_SPECTRA = {
    waveforms.si_sdr: spectral.si_sdr,
    waveforms.snr: spectral.snr,
    waveforms.level_ratio: spectral.level_ratio,
}
BY_PRODUCTS = {
    "si_sdr_db": spectral.si_sdr_of,
    "snr_db": spectral.snr_of,
    "rms_ratio_db": spectral.level_ratio_of,
}


def evaluate(
    model: Any, data: Items, settings: Settings, device: str | torch.device = "cpu"
) -> Generator[dict[str, Any], None, tuple[dict[str, float], dict[str, Any]]]:
    """Mean scores of `model` over a finite data set; returns ({name: number}, examples).

    A generator of "validating" records. SI-SDR, its improvement over the mixture, and SNR are in
    dB, means over items and sources (SI-SDR also of each source); so is the level of the estimates
    re the references. Parts of losses are means over items. Left out and counted are references
    that are silent, for which there is none ("silent"), and in the improvement those that are the
    mixture already, where nothing can be improved ("clean"). Where references are silent, the level
    of the mixture re the estimate is the suppression.
    """
    loss_fn = losses.weighted(settings.loss, settings.shares(data.sources))
    sums, examples = {}, {}
    si_sdr, before, snr, ratio, suppressed = [], [], [], [], []
    model.eval()
    for batch in datasets.in_order(data, settings.batch, workers=settings.workers):
        mix, refs, *enroll = (x.to(device) for x in batch)  # (B, C, T), (B, S, C, T)
        with torch.no_grad():
            taken, wanted = as_taken(model, settings, mix, refs)
            estimates = separate(model, taken, enroll)
            loss, terms = loss_fn(estimates, wanted, taken)
            terms = {name: value for name, value in terms.items() if "." in name}  # parts
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(mix)
            if taken is not mix:
                estimates = model.synthesise(estimates, mix.shape[-1])  # (B, S, C, T)
            si_sdr.append(measured(waveforms.si_sdr, estimates, refs, mix))  # (B, S)
            before.append(measured(waveforms.si_sdr, mix[:, None].expand_as(refs), refs, mix))
            snr.append(measured(waveforms.snr, estimates, refs, mix))
            ratio.append(measured(waveforms.level_ratio, estimates, refs, mix))
            whole = waveforms.level_ratio(mix[:, None].expand_as(refs), estimates)  # (B, S, C)
            suppressed.append(whole[waveforms.is_silent(refs, mix)].cpu())
        examples = examples or pick_examples(data.sources, mix, refs, estimates)
        yield {"event": "validating", "done": sum(map(len, si_sdr)), "items": data.items}
    si_sdr, before, snr = torch.cat(si_sdr), torch.cat(before), torch.cat(snr)  # (items, S)
    clean, silenced = before > CLEAN_DB, torch.cat(suppressed)
    scores = {
        **{name: value / len(si_sdr) for name, value in sums.items()},
        "si_sdr_db": si_sdr.nanmean().item(),
        "si_sdri_db": (si_sdr - before)[~clean].nanmean().item(),
        "snr_db": snr.nanmean().item(),
        "rms_ratio_db": torch.cat(ratio).nanmean().item(),
        **({"suppression_db": silenced.mean().item()} if len(silenced) else {}),
        **{
            f"si_sdr_db_{n}": x.item() for n, x in zip(data.sources, si_sdr.nanmean(0), strict=True)
        },
        "items": len(si_sdr),
        "silent": int(before.isnan().sum()),
        "clean": int(clean.sum()),
    }
    return scores, examples


def as_taken(model: Any, settings: Settings, *signals: Any) -> tuple[Any, ...]:
    """Signals (..., T) as the loss takes them: themselves, or their spectra (..., F, N)."""
    if losses.WAVEFORM in losses.takes(settings.loss):
        return signals
    return tuple(x if x.is_complex() else model.analyse(x) for x in signals)


def separate(model: Model, mix: torch.Tensor, enroll: Sequence[torch.Tensor] = ()) -> torch.Tensor:
    """The model's estimates (B, S, C, T) of mixtures (B, C, T), or of their spectra (B, C, F, N).

    enroll: of a conditioned model, its references (B, C, T').
    """
    condition = [model.condition(list(enroll))] if model.conditioned else []
    return model.estimates(mix, *condition)


def totals(
    estimates: torch.Tensor, refs: torch.Tensor, mix: torch.Tensor
) -> dict[str, int | float | bool]:
    """Sums over the references of a batch that are not silent: of each of MEASURES, "audible"."""
    if refs.is_complex():
        products = spectral.products(estimates, refs)
        values = {name: measure(products) for name, measure in BY_PRODUCTS.items()}
    else:
        values = {name: measure(estimates, refs) for name, measure in MEASURES.items()}
    silent = waveforms.is_silent(refs, mix)
    audible = (~silent).sum(-1)  # (B, S) channels
    means = {
        name: (x.masked_fill(silent, 0).sum(-1) / audible.clamp(min=1)).sum().item()
        for name, x in values.items()
    }
    return means | {"audible": int((audible > 0).sum())}


def measured(
    measure: Callable[..., torch.Tensor],
    estimates: torch.Tensor,
    refs: torch.Tensor,
    mix: torch.Tensor | None = None,
) -> torch.Tensor:
    """SI-SDR or SNR (B, S) in dB, mean over the channels whose reference is not silent, or NaN.

    mix: by default the sum of the references. Of spectra, the errors that cancel each other where
    frames overlap count too.
    """
    mix = refs.sum(1) if mix is None else mix
    measure = OF_SPECTRA[measure] if refs.is_complex() else measure
    values = measure(estimates, refs).masked_fill(waveforms.is_silent(refs, mix), float("nan"))
    return values.nanmean(-1).cpu()


def listen(
    model: Any, mix: torch.Tensor, refs: torch.Tensor, estimates: torch.Tensor, samples: int
) -> dict[str, torch.Tensor]:
    """`pick_examples` of a step of training, of signals of `samples`, or of their spectra."""
    signals = [x[:EXAMPLES].detach() for x in (mix, refs, estimates)]
    if mix.is_complex():
        signals = [model.synthesise(x, samples) for x in signals]
    finite = (torch.nan_to_num(x.float()) for x in signals)  # also of a step that is skipped
    return pick_examples(model.sources, *finite)


def pick_examples(
    sources: Sequence[str], mix: torch.Tensor, refs: torch.Tensor, estimates: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The first items of a batch to listen to, {name: (C, T)}; of one source, also the rest."""
    examples = {}
    for i in range(min(EXAMPLES, len(mix))):
        examples[f"{i}/mix"] = mix[i].cpu()
        for name, ref, estimate in zip(sources, refs[i], estimates[i], strict=True):
            examples |= {f"{i}/ref.{name}": ref.cpu(), f"{i}/est.{name}": estimate.cpu()}
        if len(sources) == 1:
            examples[f"{i}/ref.rest"] = (mix[i] - refs[i, 0]).cpu()
    return examples
