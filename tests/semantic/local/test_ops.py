"""The fast forms of the local generators' products against the plain ones."""

import pytest
import torch

from semantic.local import cpu, onednn, ops, plain
from tests.helpers import assert_close

LAYERS, SAMPLES, REGIONS, CHANNELS, PIXELS, FEATURES = 4, 3, 5, 3, 6, 7
MANY_PIXELS = 259


def tensors(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def layer_arguments(inputs):
    return tensors(
        inputs,
        (LAYERS, SAMPLES, REGIONS, CHANNELS, CHANNELS),
        (LAYERS, REGIONS, CHANNELS),
        (REGIONS, CHANNELS),
        (REGIONS,),
    )


def fusion_arguments(pixels=PIXELS):
    hidden, shares = (SAMPLES, REGIONS, CHANNELS, pixels), (SAMPLES, REGIONS, pixels)
    return tensors(hidden, shares, (REGIONS, FEATURES, CHANNELS), (REGIONS, FEATURES))


def assert_same(fast, plain, arguments):
    """Equal values; equal gradients of all arguments when both results, or one of them, go into a loss."""
    fast, plain = ([r] if isinstance(r, torch.Tensor) else list(r) for r in (fast, plain))
    weights = [torch.randn_like(result) for result in plain]
    for chosen in ([0], [-1], range(len(plain))):
        grads = [
            torch.autograd.grad(
                sum((results[i] * weights[i]).sum() for i in chosen),
                arguments,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for results in (fast, plain)
        ]
        for one, other in zip(*grads, strict=True):
            assert_close(one, other, 1e-10)
    for one, other in zip(fast, plain, strict=True):
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize(
    "inputs", [(CHANNELS, PIXELS), (REGIONS, CHANNELS, PIXELS), (SAMPLES, REGIONS, CHANNELS, PIXELS)]
)
@pytest.mark.parametrize(("depth_layers", "detach"), [(1, False), (2, False), (2, True), (LAYERS, True)])
@pytest.mark.parametrize("together", [1, 2, REGIONS, 2 * REGIONS])
def test_layers_on_a_cpu(monkeypatch, inputs, depth_layers, detach, together):
    monkeypatch.setattr(cpu, "_CACHED_NUMBERS", together * CHANNELS * PIXELS)
    arguments = layer_arguments(inputs)
    options = depth_layers, detach
    assert_same(ops.run_layers(*arguments, *options), plain.plain_layers(*arguments, *options), arguments)
    with torch.no_grad():
        for one, other in zip(
            ops.run_layers(*arguments, *options), plain.plain_layers(*arguments, *options), strict=True
        ):
            assert_close(one, other, 1e-10)


needs_onednn = pytest.mark.skipif(
    not onednn.fits(torch.ones(3), torch.ones(1, 1024)), reason="PyTorch has no fast oneDNN here"
)


def assert_same_in_single_precision(fast, plain, arguments, *options):
    """Values and gradients in float32 against those of the plain form in float64."""
    single = [a.detach().float().requires_grad_() for a in arguments]
    with torch.no_grad():
        values = fast(*single, *options)
    results = [fast(*single, *options), plain(*arguments, *options)]
    found, wanted = ([r] if isinstance(r, torch.Tensor) else list(r) for r in results)
    assert "onednn" in type(found[0].grad_fn)._forward_cls.__module__
    for one, other in zip([values] if isinstance(values, torch.Tensor) else values, wanted, strict=True):
        assert_close(one, other, 1e-5)
    weights = [torch.randn_like(w) for w in wanted]
    grads = [torch.autograd.grad(found, single, [w.float() for w in weights], allow_unused=True)]
    grads.append(torch.autograd.grad(wanted, arguments, weights, allow_unused=True))
    for one, other in zip(*grads, strict=True):
        assert_close(one, other, 1e-4)


@needs_onednn
@pytest.mark.parametrize("shape", [(), (REGIONS,), (SAMPLES, REGIONS)])
@pytest.mark.parametrize(("depth_layers", "detach"), [(1, False), (2, False), (2, True), (LAYERS, True)])
def test_layers_with_onednn(shape, depth_layers, detach):
    arguments = layer_arguments((*shape, CHANNELS, MANY_PIXELS))
    assert_same_in_single_precision(ops.run_layers, plain.plain_layers, arguments, depth_layers, detach)


@needs_onednn
@pytest.mark.parametrize("at_once", [1, 2, SAMPLES])
def test_fusion_with_onednn(monkeypatch, at_once):
    monkeypatch.setattr(onednn, "_STACKED_PIXELS", at_once * MANY_PIXELS)
    monkeypatch.setattr(onednn, "_SUMMED_PIXELS", 100)
    arguments = fusion_arguments(MANY_PIXELS)
    assert_same_in_single_precision(ops.fuse, plain.plain_fuse, arguments)
    assert ops.fuse(*(a.float() for a in arguments)).transpose(1, 2).is_contiguous()


@needs_onednn
def test_biases_need_not_be_dense_for_onednn():
    arguments = [a.detach().float() for a in layer_arguments((CHANNELS, MANY_PIXELS))]
    wide = torch.randn(LAYERS, REGIONS, 2 * CHANNELS)
    for arguments[2] in wide[..., ::2], wide[:1, :1, :1].expand(LAYERS, REGIONS, CHANNELS):
        hidden, _ = ops.run_layers(*arguments, 2)
        assert_close(hidden, plain.plain_layers(*arguments, 2)[0], 1e-5)


@needs_onednn
def test_no_samples_with_onednn():
    hidden, shares, *rest = (a.detach().float() for a in fusion_arguments(MANY_PIXELS))
    assert ops.fuse(hidden[:0], shares[:0], *rest).shape == (0, FEATURES, MANY_PIXELS)


@pytest.mark.parametrize("pixels", [PIXELS, MANY_PIXELS])
def test_nothing_is_kept_where_no_graph_is_made(monkeypatch, pixels):
    given = []
    for module in cpu, onednn:
        for form in module.Layers, module.Fusion:
            monkeypatch.setattr(form, "apply", lambda *arguments: given.extend(arguments))
    with torch.no_grad():
        ops.run_layers(*(a.float().requires_grad_() for a in layer_arguments((CHANNELS, pixels))), 2)
        ops.fuse(*(a.float().requires_grad_() for a in fusion_arguments(pixels)))
    assert len(given) == 11
    assert not any(a.requires_grad for a in given if isinstance(a, torch.Tensor))


@needs_onednn
def test_second_derivatives_with_onednn():
    arguments = layer_arguments((CHANNELS, MANY_PIXELS))
    single = [a.detach().float().requires_grad_() for a in arguments]
    penalties = []
    for form, given in (ops.run_layers, single), (plain.plain_layers, arguments):
        hidden, depth = form(*given, 2)
        (slope,) = torch.autograd.grad(hidden.square().mean() + depth.mean(), given[1], create_graph=True)
        penalties.append(torch.autograd.grad(slope.square().sum(), given[:4]))
    for one, other in zip(*penalties, strict=True):
        assert_close(one, other, 1e-4)


def test_few_pixels_and_other_types_are_for_batched_products():
    assert not onednn.fits(torch.ones(3), torch.ones(1, 10))
    assert not onednn.fits(torch.ones(3).double(), torch.ones(1, 1024).double())


def test_what_is_exported_names_no_operator_of_onednn(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not onednn.fits(torch.ones(3), torch.ones(1, 1024))


def test_fusion_on_a_cpu():
    arguments = fusion_arguments()
    assert_same(ops.fuse(*arguments), plain.plain_fuse(*arguments), arguments)


@pytest.mark.parametrize("wanted", range(5))
def test_gradient_of_one_argument_alone(wanted):
    arguments = layer_arguments((CHANNELS, PIXELS))
    for i, argument in enumerate(arguments):
        argument.requires_grad_(i == wanted)
    grads = [
        torch.autograd.grad(sum(result.sum() for result in form(*arguments, 2)), arguments[wanted])[0]
        for form in (ops.run_layers, plain.plain_layers)
    ]
    assert_close(*grads, 1e-10)


def test_second_derivatives_go_through_the_plain_form():
    arguments = layer_arguments((CHANNELS, PIXELS))
    assert torch.autograd.gradgradcheck(lambda *a: ops.run_layers(*a, 2), arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(ops.fuse, fusion_arguments(), fast_mode=True)


def test_a_graph_is_made_only_where_one_is_asked_for():
    arguments = layer_arguments((CHANNELS, PIXELS))
    with torch.no_grad():
        hidden, depth = ops.run_layers(*arguments, 2)
    assert hidden.grad_fn is None
    assert depth.grad_fn is None
    hidden, depth = ops.run_layers(*arguments, 2)
    assert hidden.requires_grad
    assert depth.requires_grad
