"""The packaging: metadata, version ranges of dependencies, and the place of ``conf/`` in the installed package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = (ROOT / "nemo_squeezeformer" / "__init__.py").read_text(encoding="utf-8")
CONF = ["nemo_squeezeformer.conf"] + [f"nemo_squeezeformer.conf.{name}" for name in find_packages("conf")]

setup(
    name="nemo-squeezeformer",
    version=re.findall(r'__version__ = "(.+)"', INIT)[0],
    description="The Squeezeformer speech encoder for NVIDIA NeMo: train, restore and transcribe",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="nemo-squeezeformer contributors",
    project_urls={"Paper": "https://arxiv.org/abs/2206.00888"},
    license="Apache-2.0",  # without a license classifier, because setuptools has deprecated these classifiers
    keywords=["speech recognition", "ASR", "NeMo", "Squeezeformer", "Conformer", "CTC"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["nemo_squeezeformer", "nemo_squeezeformer.*"])
    + CONF
    + ["hydra_plugins", "hydra_plugins.nemo_squeezeformer"],  # hydra_plugins is Hydra's namespace package
    package_dir={"nemo_squeezeformer.conf": "conf"},
    package_data={name: ["*.yaml"] for name in CONF} | {"nemo_squeezeformer": ["py.typed", "serving/page/*"]},
    install_requires=["torch>=2.6"],  # nemo_squeezeformer.core needs only torch
    extras_require={
        # To train, restore and transcribe with NeMo. PyPI has two versions in this range, 2.7.3 and 3.0.0. Both are
        # tested. For another version, install NeMo first, and then this package without the extra. A warning then
        # names the tested versions.
        "nemo": ["nemo_toolkit[asr]>=2.7.3,<=3.0.0"],
        # onnx exports models, onnxruntime runs them, and quantization needs both packages.
        "onnx": ["onnx", "onnxruntime"],
        "audio": ["av"],  # to transcribe m4a, mp4, wma and other audio that soundfile does not read
        "plots": ["matplotlib"],  # for the figure of `nemo-squeezeformer redundancy`
        "serve": ["aiohttp>=3.9"],  # for the web page of `nemo-squeezeformer serve`
        "vad": ["silero-vad>=6.2.3"],  # to cut long recordings at pauses; the package contains the weights
        "safetensors": ["safetensors"],  # for nemo_squeezeformer.deployment.weights without NeMo; NeMo installs it
        "tensorflow": ["h5py"],  # to import the authors' checkpoints; TensorFlow itself is not needed
        "dev": [  # for the tests, the demo, lint and type checks
            "accelerate",  # NeMo's SpeechLM2 needs accelerate and peft
            "aiohttp",
            "av",
            "codespell",
            "espeakng-loader",  # makes speech for the tests and the demo
            "h5py",
            "ipykernel",  # with nbclient: runs docs/tutorial.ipynb
            "matplotlib",
            "mypy",
            "nbclient",
            "onnx-asr",
            "onnxruntime",
            "peft",
            "playwright",  # opens the web page in a browser
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "sherpa-onnx",
            "sherpa-onnx-bin",  # the command line of sherpa-onnx
            "silero-vad",
            "srt",
            "torchdata",  # its data loader saves its position, as in the next release of NeMo
            "webvtt-py",
            "zizmor",  # checks the workflows of GitHub
        ],
    },
    entry_points={"console_scripts": ["nemo-squeezeformer=nemo_squeezeformer.__main__:main"]},
)
