"""Metrics on literal cases, and the Monte-Carlo predictive against the layers' own sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deploykit.errors import DataError
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec
from deploykit.posterior.predictive import compare_monte_carlo, monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.spec.arrays import AnyArray
from deploykit.spec.confidence import metrics, probabilities
from deploykit.spec.posterior import Checkpoint, Folded
from deploykit.spec.samples import Samples
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gnj_layers import Conv2dGNJ, bayesian_net, images, plain_net, randomised

LABELS = np.arange(8) % 3


def folded_net(
    batchnorm: BatchNormMode = BatchNormMode.KEEP,
) -> tuple[Folded, Checkpoint]:
    checkpoint = checkpoint_of(randomised(bayesian_net()))
    spec = PruneSpec(threshold=-2.5)
    data = Samples(images(16, seed=5))
    return fold_posterior(checkpoint, bayesian_net, images(), spec, batchnorm, data), checkpoint


def test_metrics_literals() -> None:
    values = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    measured = metrics(values, np.array([0, 0, 0, 1]))
    assert measured.accuracy == 0.5
    expected = -(math.log(0.5) + math.log(0.9) + math.log(0.2) + math.log(0.3)) / 4
    assert measured.nll == pytest.approx(expected)
    assert measured.ece == pytest.approx((0.5 + 0.1 + 0.8 + 0.7) / 4)


def test_one_bin_averages_before_it_takes_the_absolute_value() -> None:
    values = np.array([[0.81, 0.19], [0.83, 0.17], [0.84, 0.16], [0.86, 0.14]])
    measured = metrics(values, np.array([0, 0, 0, 1]))
    assert measured.ece == pytest.approx(_slow_ece(values))


def _slow_ece(values: AnyArray) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for index, row in enumerate(values):
        confidence = float(row.max())
        correct = int(row.argmax()) == [0, 0, 0, 1][index]
        bins.setdefault(math.ceil(confidence * 15) - 1, []).append((confidence, correct))
    gaps = [abs(sum(c for c, _ in b) - sum(k for _, k in b)) for b in bins.values()]
    return sum(gaps) / len(values)


def test_certain_and_right_is_perfect() -> None:
    measured = metrics(np.eye(3), np.arange(3))
    assert (measured.accuracy, measured.nll, measured.ece) == (1.0, 0.0, 0.0)


def test_certain_and_wrong_stays_finite() -> None:
    measured = metrics(np.eye(2), np.array([1, 0]))
    assert measured.accuracy == 0.0
    assert 80 < measured.nll < 100
    assert measured.ece == 1.0


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.zeros(2, np.int64), r"labels of shape \(2,\) do not fit 3 inputs"),
        (np.zeros(3), "labels are float64; give class numbers"),
        (np.array([0, 1, 3]), "labels run from 0 to 3 and the network has 3 classes"),
        (np.array([-1, 1, 2]), "labels run from -1"),
    ],
)
def test_bad_labels(labels: AnyArray, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        metrics(np.eye(3), labels)


def test_probabilities() -> None:
    logits = np.array([[0.0, math.log(3)], [1000.0, -1000.0]])
    np.testing.assert_allclose(probabilities(logits), [[0.25, 0.75], [1.0, 0.0]])
    already = np.array([[0.25, 0.75], [1, 0]])
    np.testing.assert_array_equal(probabilities(already), already)
    np.testing.assert_allclose(probabilities(np.log(already[:1])), already[:1])
    with pytest.raises(DataError, match=r"has shape \(2, 3, 4\); class probabilities need"):
        probabilities(np.zeros((2, 3, 4)))


def test_report_is_completed() -> None:
    folded, checkpoint = folded_net()
    calls: list[tuple[int, int]] = []
    result = compare_monte_carlo(
        folded, checkpoint, Samples(images(), LABELS), draws=3, batch=5,
        progress=lambda done, of: calls.append((done, of)),
    )  # fmt: skip
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert result.report.monte_carlo_samples == 3
    assert result.report.monte_carlo_difference is not None
    assert 0 < result.report.monte_carlo_difference < 1
    assert set(result.report.metrics) == {"mean", "pruned", "monte_carlo"}
    assert result.report.pruning == folded.report.pruning
    assert folded.report.metrics == {}


def test_seed_decides_the_draws() -> None:
    folded, checkpoint = folded_net()
    samples = Samples(images())

    def difference(seed: int) -> float | None:
        result = compare_monte_carlo(folded, checkpoint, samples, draws=2, seed=seed)
        assert result.report.metrics == {}
        return result.report.monte_carlo_difference

    assert difference(1) == difference(1) != difference(2)


def test_predictive_agrees_with_the_layers_own_sampling() -> None:
    network, inputs, draws = randomised(bayesian_net()), images(4), 800
    checkpoint = checkpoint_of(network)
    folded = fold_posterior(checkpoint, bayesian_net, inputs, PruneSpec(PruneRule.NONE))
    predictive = monte_carlo(folded.module, recognise(checkpoint), inputs, draws)
    torch.manual_seed(0)
    for module in network.modules():
        module.training = not isinstance(module, torch.nn.BatchNorm2d)
    with torch.no_grad():
        drawn = network(torch.tensor(inputs).repeat(draws, 1, 1, 1)).reshape(draws, 4, 3)
    np.testing.assert_allclose(predictive, torch.softmax(drawn, 2).mean(0), atol=0.08)
    assert np.abs(predictive - probabilities(run(folded.module, inputs))).max() > 0.16


def test_batchnorm_of_the_checkpoint_serves_the_predictive() -> None:
    kept, checkpoint = folded_net()
    changed, _ = folded_net(BatchNormMode.REESTIMATE)
    samples = Samples(images(), LABELS)
    one = compare_monte_carlo(kept, checkpoint, samples, draws=2).report
    two = compare_monte_carlo(changed, checkpoint, samples, draws=2).report
    assert one.monte_carlo_difference == two.monte_carlo_difference
    assert one.metrics["mean"] == two.metrics["mean"]
    assert set(two.metrics) == {"mean", "mean_batchnorm", "pruned", "monte_carlo"}


def test_deterministic_checkpoint_has_no_predictive() -> None:
    checkpoint = checkpoint_of(randomised(plain_net()))
    folded = fold_posterior(checkpoint, plain_net, images(), PruneSpec(PruneRule.NONE))
    report = compare_monte_carlo(folded, checkpoint, Samples(images(), LABELS)).report
    assert (report.monte_carlo_difference, report.monte_carlo_samples) == (None, 0)
    assert set(report.metrics) == {"mean", "pruned"}


def test_outputs_without_classes() -> None:
    network = randomised(Conv2dGNJ(1, 2, 3))
    checkpoint = checkpoint_of(network)
    folded = fold_posterior(checkpoint, network, images(), PruneSpec(PruneRule.NONE))
    assert compare_monte_carlo(folded, checkpoint, Samples(images())) == folded
    with pytest.raises(DataError, match="leave the labels out for this network"):
        compare_monte_carlo(folded, checkpoint, Samples(images(), LABELS))


def test_at_least_one_draw() -> None:
    folded, checkpoint = folded_net()
    with pytest.raises(DataError, match="needs at least 1 draw and got 0"):
        compare_monte_carlo(folded, checkpoint, Samples(images()), draws=0)
