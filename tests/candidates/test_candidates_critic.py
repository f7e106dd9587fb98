"""Fitness by a critic against gradients by hand, leaving groups out one by one, and generators that collapse."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ganatomy.dissect.candidates.critic import critic_fitness
from ganatomy.hooks.errors import DissectError, UsageError

STUDENT = {6: 2.446912, 19: 2.093024, 52: 2.006647}  # 97.5 % quantiles by degrees of freedom, from tables


def draw(count: int, seed: int, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def conv(*more: nn.Module, features: int = 1) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 4, 2, 1), *more, nn.LeakyReLU(0.2), nn.Conv2d(6, features, 4))


def linear(images: int = 12) -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(images, 1))


def norm(critic: nn.Module, made: Tensor, real: Tensor) -> float:
    """Of the gradient of the loss over all images at once, in double precision."""
    own = copy.deepcopy(critic).double().eval().requires_grad_(True)
    scores = [own(images.double()).flatten(1).mean(1) for images in (made, real)]
    loss = F.softplus(scores[0]).mean() + F.softplus(-scores[1]).mean()
    gradients = torch.autograd.grad(loss, list(own.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def test_a_linear_critic_by_hand() -> None:
    critic, made, real = linear(), draw(53, 0, 2), draw(47, 1, 2) ** 2
    found = critic_fitness(critic, [made], [real])
    weight, bias = critic[1].weight.detach().numpy()[0].astype(float), critic[1].bias.item()
    m, r = (images.flatten(1).numpy().astype(float) for images in (made, real))
    scores, others = m @ weight + bias, r @ weight + bias
    assert found["critic_quality"] == pytest.approx(scores.mean(), rel=1e-5)
    reach = STUDENT[52] * scores.std(ddof=1) / math.sqrt(53)
    assert found["critic_quality_high"] - scores.mean() == pytest.approx(reach, rel=1e-4)
    assert scores.mean() - found["critic_quality_low"] == pytest.approx(reach, rel=1e-4)
    pull, push = 1 / (1 + np.exp(others)), 1 / (1 + np.exp(-scores))  # derivatives of the two losses by the score
    by_weight = (push[:, None] * m).mean(0) - (pull[:, None] * r).mean(0)
    by_bias = push.mean() - pull.mean()
    assert found["critic_diversity"] == pytest.approx(-math.log(math.hypot(*by_weight, by_bias)), abs=1e-5)


def test_diversity_and_its_interval_by_leaving_groups_out() -> None:
    critic, made, real = conv(), draw(53, 0), draw(47, 1) ** 2
    found = critic_fitness(critic, [made], [real], groups=7)
    whole = -math.log(norm(critic, made, real))
    without = [
        -math.log(norm(critic, *(images[torch.arange(len(images)) % 7 != group] for images in (made, real))))
        for group in range(7)
    ]
    reach = STUDENT[6] * math.sqrt(6 / 7 * sum((each - np.mean(without)) ** 2 for each in without))
    assert found["critic_diversity"] == pytest.approx(whole, abs=1e-5)
    assert found["critic_diversity_high"] == pytest.approx(whole + reach, abs=1e-4)
    assert found["critic_diversity_low"] == pytest.approx(whole - reach, abs=1e-4)


def test_as_many_groups_as_images_leave_out_one_image_each() -> None:
    critic, made, real = conv(), draw(20, 0), draw(20, 1) ** 2
    found = critic_fitness(critic, [made], [real])
    without = [-math.log(norm(critic, *(torch.cat([x[:k], x[k + 1 :]]) for x in (made, real)))) for k in range(20)]
    reach = STUDENT[19] * math.sqrt(19 / 20 * sum((each - np.mean(without)) ** 2 for each in without))
    assert found["critic_diversity_high"] - found["critic_diversity"] == pytest.approx(reach, rel=1e-3)


class AmongOthers(nn.Module):
    """A critic that compares the images of a batch, in fours, as those with a minibatch standard deviation do."""

    def __init__(self) -> None:
        super().__init__()
        self.score = conv()

    def forward(self, images: Tensor) -> Tensor:
        spread = images.reshape(min(4, len(images)), -1, *images.shape[1:]).var(0, unbiased=False).mean()
        return self.score(images) + spread


@pytest.mark.parametrize("make", [conv, AmongOthers])
def test_results_do_not_depend_on_batches(make: Callable[[], nn.Module]) -> None:
    critic, made, real = make(), draw(233, 0), draw(187, 1) ** 2
    one = critic_fitness(critic, [made], [real])
    for size in (1, 7, 64):
        done: list[int] = []
        assert critic_fitness(critic, made.split(size), real.split(size), advance=done.append) == pytest.approx(
            one, abs=1e-6
        )
        assert sum(done) == 420


def test_a_batch_may_be_overwritten_by_the_next() -> None:
    critic, made, real = conv(), draw(50, 0), draw(50, 1) ** 2

    def reused(images: Tensor) -> Iterator[Tensor]:
        buffer = torch.empty_like(images[:10])
        for part in images.split(10):
            yield buffer.copy_(part)

    assert critic_fitness(critic, reused(made), reused(real)) == critic_fitness(critic, [made], [real])


class Noisy(nn.Module):
    """Draws, and writes to its input and to a buffer, whatever its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.score = conv(nn.BatchNorm2d(6), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.score(images.add_(0.01 * torch.randn_like(images)))


def test_critic_images_and_random_numbers_stay_untouched() -> None:
    critic, made, real = Noisy(), draw(50, 0), draw(50, 1) ** 2
    critic.score[1].eval()  # a mode of its own
    critic.score[0].bias.requires_grad_(False)
    critic(made.clone()).sum().backward()
    before = copy.deepcopy(critic.state_dict())
    grads = [None if each.grad is None else each.grad.clone() for each in critic.parameters()]
    modes, needs = [each.training for each in critic.modules()], [each.requires_grad for each in critic.parameters()]
    images, dice = (made.clone(), real.clone()), torch.get_rng_state()
    critic_fitness(critic, [made], [real])
    assert torch.equal(torch.get_rng_state(), dice)
    assert torch.equal(made, images[0])
    assert torch.equal(real, images[1])
    assert all(torch.equal(value, before[name]) for name, value in critic.state_dict().items())
    assert [each.training for each in critic.modules()] == modes
    assert [each.requires_grad for each in critic.parameters()] == needs
    for each, grad in zip(critic.parameters(), grads, strict=True):
        assert (each.grad is None and grad is None) or torch.equal(each.grad, grad)


def test_the_critic_judges_in_evaluation_mode() -> None:
    critic, made, real = conv(nn.BatchNorm2d(6)), draw(50, 0), draw(50, 1) ** 2
    critic(made)  # moves the running statistics
    assert critic.training
    found = critic_fitness(critic, [made], [real])
    assert found["critic_diversity"] == pytest.approx(-math.log(norm(critic, made, real)), abs=1e-5)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_under_a_callers_mode(mode: Callable[[], torch.inference_mode]) -> None:
    critic, made, real = conv(nn.BatchNorm2d(6)), draw(50, 0), draw(50, 1) ** 2
    usual, seen = critic_fitness(critic, [made], [real]), []

    def drawn() -> Iterator[Tensor]:
        for images in made.split(16):
            seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
            yield images * 1

    with mode():
        expected = (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
        assert critic_fitness(critic, drawn(), [real * 1]) == usual
        assert torch.is_grad_enabled() == expected[1]
    assert seen == [expected] * 4  # the generator runs as the caller wants it to


def test_images_with_a_gradient_of_their_own() -> None:
    critic, made, real = conv(), draw(50, 0), draw(50, 1) ** 2
    scale = torch.ones((), requires_grad=True)
    assert critic_fitness(critic, [made * scale], [real]) == critic_fitness(critic, [made], [real])
    assert scale.grad is None


def test_frozen_parameters_count_only_where_all_are_frozen() -> None:
    made, real = draw(50, 0), draw(50, 1) ** 2
    critic = conv()
    usual = critic_fitness(critic, [made], [real])
    assert critic_fitness(critic.requires_grad_(False), [made], [real]) == usual
    critic[2].requires_grad_(True)  # the last layer alone: it sees what the first makes of the images
    tail = nn.Sequential(nn.LeakyReLU(0.2), critic[2])
    maps = [critic[0](images).detach() for images in (made, real)]
    part = critic_fitness(critic, [made], [real])
    assert part["critic_diversity"] == pytest.approx(-math.log(norm(tail, *maps)), abs=1e-5)
    assert part["critic_diversity"] > usual["critic_diversity"]  # of fewer parameters


def test_parameters_that_scores_do_not_depend_on_change_nothing() -> None:
    critic, made, real = conv(), draw(50, 0), draw(50, 1) ** 2
    usual = critic_fitness(critic, [made], [real])
    critic.register_parameter("idle", nn.Parameter(torch.ones(5)))
    assert critic_fitness(critic, [made], [real]) == usual


def test_a_spectrally_normalised_critic_in_the_middle_of_training() -> None:
    critic, made, real = conv(), draw(50, 0), draw(50, 1) ** 2
    nn.utils.spectral_norm(critic[0])
    critic(made).sum().backward()  # leaves a weight with a history, which deepcopy refuses
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(critic)
    found = critic_fitness(critic, [made], [real])
    fresh = conv()
    nn.utils.spectral_norm(fresh[0])
    fresh.load_state_dict(critic.state_dict())
    assert found["critic_diversity"] == pytest.approx(-math.log(norm(fresh, made, real)), abs=1e-5)


@pytest.mark.parametrize("last", [nn.Flatten(), nn.Flatten(0)], ids=["(N, 1)", "(N,)"])
def test_scores_of_any_allowed_shape(last: nn.Module) -> None:
    made, real = draw(53, 0), draw(41, 1) ** 2
    assert critic_fitness(nn.Sequential(conv(), last), [made], [real]) == critic_fitness(conv(), [made], [real])


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = conv()

    def forward(self, images: Tensor) -> Tensor:
        return self.score(images).squeeze()


def test_a_single_image_squeezed_to_nothing_is_still_a_score() -> None:
    made, real = draw(21, 0), draw(21, 1) ** 2
    assert critic_fitness(Squeezed(), [made], [real]) == critic_fitness(conv(), [made], [real])


def test_the_score_of_a_patch_critic_is_the_mean_over_its_places() -> None:
    made, real = draw(50, 0, 14), draw(50, 1, 14) ** 2
    critic = conv()
    assert critic(made).shape == (50, 1, 4, 4)
    found = critic_fitness(critic, [made], [real])
    assert found["critic_quality"] == pytest.approx(critic(made).mean().item(), abs=1e-6)
    assert found["critic_diversity"] == pytest.approx(-math.log(norm(critic, made, real)), abs=1e-5)


class Gives(nn.Module):
    """A critic whose output is anything."""

    def __init__(self, answer: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        return self.answer(self.scale * images.mean((1, 2, 3)))


@pytest.mark.parametrize(
    ("critic", "counts", "kind", "message"),
    [
        (conv(features=2), (20, 20), UsageError, r"\(1, 2, 1, 1\) .*\(1, 3, 8, 8\).*\(N, 1\)"),
        (Gives(lambda scores: scores.mean()), (40, 40), UsageError, r"\(\) .*\(2, 3, 8, 8\)"),
        (Gives(lambda scores: (scores, scores)), (20, 20), UsageError, "tuple.*tensor"),
        (Gives(lambda scores: scores.detach()), (20, 20), UsageError, "no gradient .*parameters"),
        (Gives(lambda scores: scores / 0), (20, 20), DissectError, "generated images .*finite"),
        (Gives(lambda scores: scores * 0), (20, 20), DissectError, "gradient .*zero"),
        (Gives(lambda scores: (scores * 0).sqrt()), (20, 20), DissectError, "gradient .*finite"),
        (linear(), (20, 20), UsageError, r"\(1, 3, 8, 8\) .*size"),
        (nn.Flatten(), (20, 20), UsageError, "Flatten.*parameters.*weights"),
        (conv(), (19, 20), DissectError, "19 generated images: .*20"),
        (conv(), (20, 19), DissectError, "19 real images: .*20"),
        (conv(), (0, 20), DissectError, "0 generated images: .*20"),
        (Gives(threading.Lock()), (20, 20), DissectError, r"copied.*copy\.deepcopy"),
    ],
)
def test_what_cannot_be_judged(
    critic: nn.Module, counts: tuple[int, int], kind: type[DissectError], message: str
) -> None:
    made, real = draw(counts[0], 0), draw(counts[1], 1)
    with pytest.raises(DissectError, match=message) as raised:
        critic_fitness(critic, [made], [real])
    assert raised.type is kind
    assert "\n" not in str(raised.value)


def test_a_single_group_leaves_nothing_over() -> None:
    with pytest.raises(UsageError, match=r"groups=1: .*2"):
        critic_fitness(conv(), [draw(20, 0)], [draw(20, 1)], groups=1)


def ring(count: int, dice: torch.Generator, modes: Sequence[int] = range(8), deviation: float = 0.02) -> Tensor:
    """Images of one pixel, in some of eight places on a circle of colours."""
    angle = torch.tensor(modes)[torch.randint(len(modes), (count,), generator=dice)] * math.tau / 8
    place = 0.5 + 0.3 * torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
    return (place + deviation * torch.randn(count, 3, generator=dice))[:, :, None, None]


def trained(**fake: Sequence[int] | float) -> nn.Module:
    """A critic that has learnt to tell a whole ring from another."""
    torch.manual_seed(0)
    dice = torch.Generator().manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(3, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    for _ in range(300):
        loss = F.softplus(-critic(ring(128, dice))).mean() + F.softplus(critic(ring(128, dice, **fake))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return critic


def judged(critic: nn.Module) -> tuple[dict[str, float], dict[str, float]]:
    """Of a generator of all eight places, and of one that repeats a single image."""
    dice = torch.Generator().manual_seed(1)
    real, varied, image = ring(400, dice), ring(400, dice, deviation=0.05), ring(1, dice, [0])
    return critic_fitness(critic, [varied], [real]), critic_fitness(critic, [image.expand(400, -1, -1, -1)], [real])


def test_before_a_critic_of_varied_images_a_collapsed_generator_lies_lower() -> None:
    varied, collapsed = judged(trained(deviation=0.05))
    assert collapsed["critic_diversity_high"] < varied["critic_diversity_low"]


def test_before_a_critic_of_its_own_a_collapsed_generator_lies_higher() -> None:
    varied, collapsed = judged(trained(modes=[0]))
    assert collapsed["critic_diversity_low"] > varied["critic_diversity_high"]


@pytest.mark.slow
def test_intervals_hold_what_repetition_gives() -> None:
    critic = trained(deviation=0.1)
    dice = torch.Generator().manual_seed(2)
    found = [critic_fitness(critic, [ring(100, dice, [0, 1])], [ring(100, dice)]) for _ in range(60)]
    for name in ("critic_quality", "critic_diversity"):
        middle = np.mean([each[name] for each in found])
        inside = [each[f"{name}_low"] < middle < each[f"{name}_high"] for each in found]
        assert np.mean(inside) > 0.85
        reach = np.mean([each[f"{name}_high"] - each[name] for each in found])
        assert reach == pytest.approx(2 * np.std([each[name] for each in found]), rel=0.4)
