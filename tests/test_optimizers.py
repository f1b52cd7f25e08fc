"""Muon against its definition, AdamW, and an undisturbed run."""

import copy

import pytest
import torch
from torch import nn

from sepcli.errors import SepcliError
from sepcli.training.optimizers import Muon, optimizer_of, orthogonal, stacks
from sepcli.training.settings import Settings

GIVEN = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.conv = nn.LSTM(5, 6), nn.Conv1d(6, 3, 2)

    def forward(self, x):
        return self.conv(self.lstm(x)[0].permute(1, 2, 0))


def learn(net, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        net(torch.randn(7, 2, 5, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (3, 40, 6)])
def test_singular_values_become_about_1_and_their_vectors_stay(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    found = u.mT @ orthogonal(x) @ v.mT  # diagonal where the vectors are the same
    known = s > 0.1 * s.amax(-1, keepdim=True)
    values = torch.diagonal(found, dim1=-2, dim2=-1)
    assert ((values > 0.5) & (values < 1.3))[known].all()
    assert (found - torch.diag_embed(values)).abs().max() < 0.1


def test_no_gradient_is_no_step_and_no_nan():
    assert not orthogonal(torch.zeros(2, 3)).any()


def test_the_first_step_is_the_orthogonal_gradient_of_each_gate():
    torch.manual_seed(0)
    net = Net()
    before, optimizer = copy.deepcopy(net), Muon(net, **GIVEN | {"weight_decay": 0.0})
    net(torch.randn(7, 2, 5)).square().mean().backward()
    gradient = net.lstm.weight_ih_l0.grad.clone()
    optimizer.step()
    moved = (before.lstm.weight_ih_l0 - net.lstm.weight_ih_l0).detach().chunk(4)
    for step, part in zip(moved, gradient.chunk(4), strict=True):
        expected = 1e-2 * 0.2 * 6**0.5 * orthogonal(part)
        torch.testing.assert_close(step, expected, rtol=0.05, atol=2e-4)


def test_what_is_no_matrix_is_moved_as_by_adamw():
    torch.manual_seed(0)
    nets = [Net() for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [Muon(nets[0], **GIVEN), torch.optim.AdamW(nets[1].parameters(), **GIVEN)]
    learn(nets[0], optimizers[0], 1)
    learn(nets[1], optimizers[1], 1)
    ours, theirs = (dict(net.named_parameters()) for net in nets)
    for name in ours:
        same = torch.allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7)
        assert same is (ours[name].ndim == 1), name


def test_a_training_goes_on_from_what_was_saved():
    torch.manual_seed(0)
    net = Net()
    optimizer = Muon(net, **GIVEN)
    learn(net, optimizer, 3)
    other = copy.deepcopy(net)
    resumed = Muon(other, **GIVEN)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(net, optimizer, 3, seed=1)
    learn(other, resumed, 3, seed=1)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_recurrent_layers_are_stacks_of_their_gates():
    net = nn.ModuleDict({"lstm": nn.LSTM(2, 3), "gru": nn.GRU(2, 3), "linear": nn.Linear(2, 3)})
    assert sorted(stacks(net).values()) == [3] * 4 + [4] * 4


def test_the_settings_say_which():
    net = nn.Linear(2, 3)
    assert type(optimizer_of(net, Settings())) is torch.optim.AdamW
    assert type(optimizer_of(net, Settings(optimizer="muon"))) is Muon
    for wrong in ({"optimizer": "sgd"}, {"optimizer": "muon", "parallel": "fsdp"}):
        with pytest.raises(SepcliError, match=r"train\.optimizer must be adamw"):
            Settings(**wrong)
