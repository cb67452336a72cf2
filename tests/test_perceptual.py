"""ST-LPIPS: golden numbers of its authors' package, the folded first stage, what it punishes, gradients, bad files."""

import copy

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from errors import InputError
from models.perceptual import STLPIPS_WEIGHTS, load_perceptual
from models.stlpips import STLPIPS

# stlpips-pytorch 0.0.2, net="alex", variant="shift_tolerant", on the three pairs of `golden_pairs`.
GOLDEN = {
    64: [0.3657051920890808, 0.6014880537986755, 0.2694917619228363],
    128: [0.3567231297492981, 0.5736755132675171, 0.1496025174856186],
}


@pytest.fixture(scope="module")
def stlpips() -> STLPIPS:
    return load_perceptual("stlpips")


def face(size: int, left: int = 160) -> np.ndarray:
    return skimage.data.astronaut()[60 : 60 + size, left : left + size].astype(np.int64)


def box_blur(image: np.ndarray, radius: int) -> np.ndarray:
    size, side = len(image), 2 * radius + 1
    spread = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    return sum(spread[y : y + size, x : x + size] for y in range(side) for x in range(side)) // side**2


def tensor(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255).permute(0, 3, 1, 2)


def golden_pairs(size: int) -> tuple[Tensor, Tensor]:
    """Blurred face and face, camera man and face, camera man in four greys and camera man."""
    camera = skimage.data.camera()[60 : 60 + size, 180 : 180 + size, None].repeat(3, 2).astype(np.int64)
    outputs = tensor(box_blur(face(size), 2), camera, camera // 64 * 64 + 32)
    return outputs, tensor(face(size), face(size), camera)


@pytest.mark.parametrize("size", [64, 128])
def test_half_precision_weights_give_the_golden_distances(stlpips, size):
    assert stlpips(*golden_pairs(size)).tolist() == pytest.approx(GOLDEN[size], rel=1e-2)


@pytest.mark.parametrize("size", [64, 128])
def test_single_precision_weights_give_the_golden_distances(shared, size):
    path = shared("weights/stlpips_alex_shift_tolerant.pth")
    network = STLPIPS()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    assert network(*golden_pairs(size)).tolist() == pytest.approx(GOLDEN[size], rel=1e-4)


@pytest.mark.parametrize("height, width", [(64, 64), (65, 64), (64, 33), (21, 35)])
def test_the_folded_first_stage_equals_its_steps_also_at_the_edges(stlpips, height, width):
    entry = stlpips.net.slice1
    convolution, blur = entry
    image = torch.randn(2, 3, height, width, generator=torch.manual_seed(0))
    folded_input, stepwise_input = image.clone().requires_grad_(), image.clone().requires_grad_()
    folded, stepwise = entry(folded_input), F.relu(blur(convolution(stepwise_input)))
    torch.testing.assert_close(folded, stepwise, atol=1e-5, rtol=1e-5)
    folded.square().sum().backward()
    stepwise.square().sum().backward()
    torch.testing.assert_close(folded_input.grad, stepwise_input.grad, atol=1e-4, rtol=1e-4)


def test_identical_images_have_no_distance(stlpips):
    images = tensor(face(64), np.zeros_like(face(64)))
    assert stlpips(images, images).tolist() == [0, 0]


def test_each_pair_of_a_batch_counts_alone_and_images_need_not_be_square(stlpips):
    outputs, targets = (images[:, :, 64:] for images in golden_pairs(128))
    alone = [stlpips(outputs[index : index + 1], targets[index : index + 1]) for index in range(3)]
    torch.testing.assert_close(stlpips(outputs, targets), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_distance_grows_with_blur_and_hardly_with_a_shift(stlpips):
    sharp = face(128)
    changed = [box_blur(sharp, radius) for radius in (1, 2, 3, 4)] + [face(128, left=161)]
    *blurred, shifted = stlpips(tensor(*changed), tensor(*[sharp] * 5)).tolist()
    assert blurred == sorted(blurred) and blurred[0] > 0
    assert 0 < shifted < blurred[0] / 10


def test_gradients_reach_the_output_alone(stlpips):
    output, target = (images.requires_grad_() for images in golden_pairs(64))
    stlpips(output, target).sum().backward()
    assert output.grad.isfinite().all() and output.grad.abs().amax((1, 2, 3)).min() > 0
    assert target.grad is None
    assert all(not weight.requires_grad and weight.grad is None for weight in stlpips.parameters())


def test_a_step_against_the_gradient_brings_a_blurred_face_nearer(stlpips):
    blurred, sharp = tensor(box_blur(face(64), 2)).requires_grad_(), tensor(face(64))
    before = stlpips(blurred, sharp)
    (slope,) = torch.autograd.grad(before.sum(), blurred)
    assert stlpips(blurred - 1e-3 * slope.sign(), sharp) < before


def test_flat_images_have_finite_gradients(stlpips):
    flat = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].repeat(1, 3, 32, 32).requires_grad_()
    for target in (flat.detach(), flat.detach().flip(0)):
        (slope,) = torch.autograd.grad(stlpips(flat, target).sum(), flat)
        assert slope.isfinite().all()


def test_it_stays_in_eval_mode_and_single_precision(stlpips):
    network = torch.nn.ModuleList([copy.deepcopy(stlpips)]).train()
    assert not any(module.training for module in network[0].modules())
    assert {value.dtype for value in network[0].state_dict().values()} == {torch.float32}


def test_mixed_precision_keeps_single_precision_distances(stlpips):
    outputs, targets = golden_pairs(64)
    with torch.autocast("cpu", torch.bfloat16):
        distances = stlpips(outputs, targets)
    assert distances.dtype == torch.float32
    assert distances.tolist() == pytest.approx(GOLDEN[64], rel=0.05)


def test_unknown_kinds_and_missing_files_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="'vgg'.*stlpips"):
        load_perceptual("vgg")
    with pytest.raises(InputError, match=r"nowhere\.safetensors"):
        load_perceptual("stlpips", tmp_path / "nowhere.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(STLPIPS_WEIGHTS.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"broken\.safetensors"):
        load_perceptual("stlpips", str(broken))


def test_keys_that_do_not_fit_are_named_in_one_line(tmp_path):
    state = load_file(STLPIPS_WEIGHTS)
    state["extra.weight"] = state.pop("lin4.model.1.weight")
    state["net.slice4.11.bias"] = torch.zeros(3)
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(InputError) as caught:
        load_perceptual("stlpips", path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "1 missing: lin4.model.1.weight", "1 unexpected: extra.weight", "net.slice4.11.bias"):
        assert part in message
