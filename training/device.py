"""Device, precision and threads."""
import torch

from common.files import InputError
from common.text import short
from training import distributed


def autocast(x: torch.Tensor, amp: torch.dtype | None) -> torch.autocast:
    """The autocast context of --amp (None: float32) for images, or the output of frozen layers, x.

    On the CPU float32 in frames of up to 32 columns: there maps become two columns wide and less, and PyTorch's
    bfloat16 convolutions of 3 x 3 and stride 2 over them (2.14, AMX) read memory that nobody wrote.
    """
    widest = 32 if x.dim() == 4 and x.shape[1] == 1 else 512 // x.shape[1]  # of a map of 64, 128, 256 channels: 8, 4, 2
    narrow = x.device.type == "cpu" and x.dim() == 4 and x.shape[3] <= widest
    return torch.autocast(x.device.type, dtype=amp or torch.bfloat16, enabled=amp is not None and not narrow)


def precision_name(amp: torch.dtype | None) -> str:
    """"bfloat16", "float16" or, of None, "float32"."""
    return str(amp or torch.float32).removeprefix("torch.")


def open_device(device: str, amp: str, threads: int | None) -> tuple[torch.device, torch.dtype | None]:
    """--device, --amp and --threads -> device and precision."""
    if threads:
        torch.set_num_threads(threads)
    found = distributed.start(choose_device(device))
    if found.type == "cuda":  # else sums differ from run to run, and a resumed run from an undisturbed one
        torch.backends.cudnn.deterministic = True
    return found, choose_amp(amp, found)


def choose_device(name: str) -> torch.device:
    """--device -> torch.device. Raises InputError for one that this machine does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {name}: not on this machine: {short(error)}") from None
    return device


def choose_amp(amp: str, device: torch.device) -> torch.dtype | None:
    """--amp -> torch.bfloat16, torch.float16 or None (float32). auto: bfloat16 where the hardware gains by it.

    Intel's AVX-512 BF16 without AMX (as in virtual machines that hide AMX) multiplies no faster than float32 and pays
    for the conversions.
    """
    if amp != "auto":
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu":
        processor = torch.cpu.get_capabilities()
        avx512 = processor.get("avx512_bf16") and "Intel" not in processor.get("cpu_name", "")
        return torch.bfloat16 if processor.get("amx_bf16") or avx512 else None
    return None
