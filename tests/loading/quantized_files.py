"""Quantized checkpoints for tests, packed bit by bit in numpy, with the weights they mean.

Every function takes float weights [out, in] and gives the tensors of a module by suffix, and
the weights that these stand for, float32.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def words(values, bits):
    """Whole numbers [n, k] as a stream of bits in each row, lowest first, in int32."""
    stream = (np.asarray(values, dtype=np.int64)[..., None] >> np.arange(bits)) & 1
    flat = stream.reshape(len(values), -1)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32))).astype(np.uint8)
    packed = np.packbits(flat, axis=1, bitorder="little")
    return torch.from_numpy(packed.view(np.int32).copy())


def codes(weight, bits, group, *, symmetric, order=None, scale_dtype=torch.float16):
    """(q, zero, scale, index, meaning): q - zero times scale, groups by `index` [in]."""
    weight = np.asarray(weight, dtype=np.float32)
    columns = weight.shape[1]
    index = np.arange(columns) // (group or columns)
    if order is not None:
        index = index[order]
    count = index.max() + 1
    low = np.stack([weight[:, index == one].min(1) for one in range(count)], axis=1)
    high = np.stack([weight[:, index == one].max(1) for one in range(count)], axis=1)
    steps = 2**bits - 1
    if symmetric:
        spread = np.maximum(abs(low), abs(high)) * 2
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        spread = high - low
    scale = torch.from_numpy(np.maximum(spread / steps, 1e-3)).to(scale_dtype)
    wide = scale.float().numpy()
    zero = np.full_like(wide, 2 ** (bits - 1)) if symmetric else np.round(-low / wide)
    zero = np.clip(zero, 0, steps)
    q = np.clip(np.round(weight / wide[:, index]) + zero[:, index], 0, steps)
    meaning = (q - zero[:, index]) * wide[:, index]
    return q.astype(int), zero.astype(int), scale, index, meaning.astype(np.float32)


def awq(weight, group=32):
    q, zero, scale, _, meaning = codes(weight, 4, group, symmetric=False)

    def pack(values):
        by_word = values.T.reshape(values.shape[1], -1, 8)[..., list(AWQ_ORDER)]
        return words(by_word.reshape(values.shape[1], -1), 4)

    parts = {"qweight": pack(q), "qzeros": pack(zero), "scales": scale.T.contiguous()}
    return parts, meaning


def awq_config(group=32, **changes):
    return {
        "quant_method": "awq", "bits": 4, "group_size": group or -1, "zero_point": True,
        "version": "gemm", "modules_to_not_convert": None, **changes,
    }  # fmt: skip


def gptq(weight, bits=4, group=32, *, symmetric=True, v2=False, order=None, index=True):
    q, zero, scale, groups, meaning = codes(weight, bits, group, symmetric=symmetric, order=order)
    stored = zero if v2 else (zero - 1) % 2**bits
    parts = {
        "qweight": words(q, bits).T.contiguous(),
        "qzeros": words(stored.T, bits),
        "scales": scale.T.contiguous(),
    }
    if index:
        parts["g_idx"] = torch.from_numpy(groups.astype(np.int32))
    return parts, meaning


def gptq_config(bits=4, group=32, **changes):
    return {
        "quant_method": "gptq", "bits": bits, "group_size": group or -1, "desc_act": False,
        "sym": True, **changes,
    }  # fmt: skip


def packed(weight, bits=4, group=32, *, symmetric=True, zeros="packed", order=None, **how):
    """compressed-tensors' pack-quantized; `zeros` packed along the rows or plain int8."""
    q, zero, scale, index, meaning = codes(
        weight, bits, group, symmetric=symmetric, order=order, **how
    )
    parts = {
        "weight_packed": words(q, bits),
        "weight_scale": scale,
        "weight_shape": torch.tensor(list(np.shape(weight))),
    }
    if not symmetric:
        plain = torch.from_numpy((zero - 2 ** (bits - 1)).astype(np.int8))
        parts["weight_zero_point"] = words(zero.T, bits).T if zeros == "packed" else plain
        parts["weight_zero_point"] = parts["weight_zero_point"].contiguous()
    if order is not None:
        parts["weight_g_idx"] = torch.from_numpy(index.astype(np.int32))
    return parts, meaning


def int8(weight, strategy="channel", group=None, *, symmetric=True, scale_dtype=torch.bfloat16):
    """compressed-tensors' int-quantized: int8 as it is."""
    shape = np.shape(weight)
    if strategy == "tensor":
        weight = np.reshape(weight, (1, -1))
    q, zero, scale, _, meaning = codes(
        weight, 8, group, symmetric=symmetric, scale_dtype=scale_dtype
    )
    values = torch.from_numpy((q - 128).astype(np.int8)).reshape(shape)
    parts = {"weight": values, "weight_scale": scale}
    if not symmetric:
        parts["weight_zero_point"] = torch.from_numpy((zero - 128).astype(np.int8))
    if strategy == "tensor":
        parts = {name: one.view(-1) if name != "weight" else one for name, one in parts.items()}
    return parts, meaning.reshape(shape)


def float8(weight, block=None, *, scale_dtype=torch.float32, flat=False):
    """e4m3 with a scale for each block (rows, columns), by default one for all."""
    weight = torch.as_tensor(np.asarray(weight, dtype=np.float32))
    rows, columns = weight.shape
    height, width = block or (rows, columns)
    blocks = (-(-rows // height), -(-columns // width))
    scale, values = torch.empty(blocks), torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    meaning = torch.empty(rows, columns)
    for row in range(blocks[0]):
        for column in range(blocks[1]):
            at = (slice(row * height, (row + 1) * height),
                  slice(column * width, (column + 1) * width))  # fmt: skip
            one = (weight[at].abs().max() / 448).clamp(min=1e-6)
            if scale_dtype == torch.float8_e8m0fnu:
                one = torch.exp2(torch.ceil(torch.log2(one)))
            one = one.to(scale_dtype)
            scale[row, column] = one.float()
            values[at] = (weight[at] / one.float()).clamp(-448, 448).to(values.dtype)
            meaning[at] = values[at].float() * one.float()
    scale = scale.to(scale_dtype)
    return {"weight": values, "scale": scale.view(-1) if flat else scale}, meaning.numpy()


def fp8(weight, block=None, *, name=None, static=False, **how):
    """DeepSeek's and Qwen3's blocks, or one scale a tensor."""
    parts, meaning = float8(weight, block, **how)
    parts[name or ("weight_scale_inv" if block else "weight_scale")] = parts.pop("scale")
    if static:
        parts["input_scale"] = torch.ones(1)
    return parts, meaning


def fp8_config(block=None, **changes):
    return {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
        "weight_block_size": list(block) if block else None, **changes,
    }  # fmt: skip


def compressed_float(weight, block=None, **how):
    parts, meaning = float8(weight, block, **how)
    parts["weight_scale"] = parts.pop("scale")
    return parts, meaning


def compressed_config(weights, format="pack-quantized", targets=("Linear",), **changes):
    group = {"targets": list(targets), "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": format, "ignore": ["lm_head"],
        "config_groups": {"group_0": group}, "quantization_status": "compressed", **changes,
    }  # fmt: skip


def weights_of(kind="int", bits=4, strategy="group", **changes):
    """The `weights` of a config group."""
    return {"type": kind, "num_bits": bits, "strategy": strategy, "symmetric": True, **changes}


# -- whole models ----------------------------------------------------------------------------


def is_linear(name):
    return name.endswith("_proj.weight")


def quantize_tensors(tensors, make, wanted=is_linear):
    """(stored, meant): `make` for the wanted weights, the others as they are."""
    stored, meant = {}, {}
    for name, tensor in tensors.items():
        if not wanted(name):
            stored[name] = meant[name] = tensor
            continue
        parts, meaning = make(tensor.float().numpy())
        module = name.removesuffix(".weight")
        stored.update({f"{module}.{part}": one.contiguous() for part, one in parts.items()})
        meant[name] = torch.from_numpy(np.ascontiguousarray(meaning))
    return stored, meant


def rewrite_model(folder, make, settings, *, wanted=is_linear, shards=1):
    """Quantize a saved model where it lies; the weights it now means, by name."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    path = folder / "model.safetensors"
    stored, meant = quantize_tensors(load_file(path), make, wanted)
    path.unlink()
    write_shards(folder, stored, shards)
    return meant


def write_shards(folder, tensors, shards=1):
    """One file, or several with an index; the parts of a weight are spread over them."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names, weight_map = list(tensors), {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: tensors[name] for name in part}, folder / shard)
        weight_map.update(dict.fromkeys(part, shard))
    content = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
