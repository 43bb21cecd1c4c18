"""The way through, from a checkpoint to a proven bundle. Read this first.

Every stage takes the last one's result and gives it a new name; the types between them are in
`deploykit.spec`. Stages do not know each other: what one needs of another (an evaluator, a runtime)
is handed to it here.
"""

from __future__ import annotations

from pathlib import Path

from deploykit.bundle import Bundle, check_replaceable, write_bundle
from deploykit.errors import ParityError
from deploykit.exporting.contents import Outcome, bundle_files
from deploykit.exporting.data import load_samples
from deploykit.exporting.evidence import measure_accuracy, prove_parity, record_golden
from deploykit.exporting.options import ExportOptions
from deploykit.spec.progress import Progress, Silent

MONTE_CARLO_INPUTS = 512
"""Inputs on which the mean network is compared with draws from the posterior."""


def export_bundle(
    checkpoint: Path, options: ExportOptions, out: Path, progress: Progress | None = None
) -> Bundle:
    """Load, fold, capture, prune, quantize, write, prove: a finished bundle in `out`.

    Raises a DeploykitError that says where, what and what next; then `out` is as it was before.
    """
    progress = progress or Silent()
    check_replaceable(out)
    samples = load_samples(options.data, options.input_shape)
    labelled = None
    if options.eval_data is not None:
        labelled = load_samples(options.eval_data, options.input_shape)

    from deploykit.graph.capture import capture
    from deploykit.graph.normalize import normalize
    from deploykit.graph.removal import remove_dead_channels
    from deploykit.posterior.architecture import load_factory
    from deploykit.posterior.checkpoint import load_checkpoint
    from deploykit.posterior.fold import fold_posterior
    from deploykit.posterior.predictive import compare_monte_carlo
    from deploykit.quantize.apply import apply_plan
    from deploykit.quantize.planning import Runners, plan_quantization
    from deploykit.quantize.structure import build_structure
    from deploykit.reference.float import evaluate
    from deploykit.reference.integer import ReferenceRunner
    from deploykit.runtime import ort
    from deploykit.verify.formats import WrittenRunner, formats_for

    formats = formats_for(options.to, options.tflite_layout)
    runners = Runners(ort.evaluate, ReferenceRunner(), [WrittenRunner(fmt) for fmt in formats])

    with progress.stage("load checkpoint"):
        loaded = load_checkpoint(checkpoint)
    with progress.stage("fold posterior"):
        factory = load_factory(options.model)
        folded = fold_posterior(
            loaded, factory, samples.inputs[:4], options.pruning, options.batchnorm, samples
        )
    with progress.stage("compare Monte Carlo") as advance:
        compared = (labelled or samples).head(MONTE_CARLO_INPUTS)
        folded = compare_monte_carlo(folded, loaded, compared, progress=advance)
    with progress.stage("capture graph"):
        captured = capture(folded.module, folded.variance, options.input_shape)
    with progress.stage("fold batch norm and scales"):
        masked = normalize(captured)
        build_structure(masked)  # an operator without an integer form ends it here, early
    with progress.stage("remove channels"):
        pruned, removal = remove_dead_channels(masked, evaluate)
    with progress.stage("plan quantization") as advance:
        plan = plan_quantization(pruned, samples, options.quantization, runners, advance)
    with progress.stage("write files"):
        network = apply_plan(pruned, plan)
        models = {fmt: fmt.write(network) for fmt in formats}
    with progress.stage("golden inputs"):
        golden = record_golden(folded, masked, network, labelled or samples)
    with progress.stage("prove parity") as advance:
        parity = prove_parity(models, network, golden, labelled, advance)
    with progress.stage("measure accuracy"):
        accuracy = measure_accuracy(folded, pruned, network, models, labelled)

    diverging = [comparison for comparison in parity if comparison.total_differing]
    if diverging:
        worst = diverging[0]
        raise ParityError(
            f"{worst.runner} and the reference disagree on {worst.total_differing} of "
            f"{worst.total_compared} integers, first in operator {worst.operator}; "
            "no bundle was written"
        )
    with progress.stage("write bundle"):
        outcome = Outcome(
            checkpoint, options, loaded, folded, pruned, removal, plan, network, models, golden,
            parity, accuracy,
        )  # fmt: skip
        return write_bundle(out, bundle_files(outcome))
