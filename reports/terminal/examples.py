"""Example commands, shown below the help of each command."""

from __future__ import annotations

_EXAMPLES = {
    "dissect": """
  dissect run progan_scenes
  dissect ablate runs/progan_scenes-layer5 --class tree --samples 64
  dissect checkup dcgan_scenes
  dissect latents interpolate progan_scenes
  dissect fitness progan_scenes dcgan_scenes
  dissect inspect stylegan2-ffhq.pkl
""",
    "run": """
  dissect run progan_scenes
  dissect run progan_scenes --samples 2000
  dissect run progan_scenes --layer 5 --layer 7 --samples 2000 \\
    --out runs/both
  dissect run progan_scenes --layer 5 --control rotation \\
    --control untrained
  dissect run progan_scenes --layer 5 --basis pca --directions 16
  dissect run progan_scenes --layer 5 --samples 2000 --shard 3/16
  torchrun --nproc-per-node 2 -m ganatomy.cli run progan_scenes \\
    --layer 5 --samples 2000
  dissect run train.py:Generator --arg nz=100 --weights g.pt \\
    --layer up3 --segmenter mynet:namer
  dissect run stylegan2-ffhq.pkl --truncation 0.7 \\
    --layer synthesis.b32.conv0 --segmenter hub:./segformer-ade20k
  dissect run horse2zebra.pth --inputs photos --samples 100 \\
    --layer model.10 --segmenter hub:./segformer-ade20k
""",
    "merge": """
  dissect merge runs/progan_scenes-layer5-shard-*
  dissect merge shards/1 shards/2 shards/3 --out runs/merged
""",
    "ablate": """
  dissect ablate runs/progan_scenes-layer5 --class tree --samples 64
  dissect ablate runs/progan_scenes-layer5 --class tree --by scan --curve
  dissect ablate runs/progan_scenes-layer5 --units layer5:12,57 --class tree \\
    --value mean
  dissect ablate runs/progan_scenes-layer5 --class tree --optimize
""",
    "insert": """
  dissect insert runs/progan_scenes-layer5 --class cloud \\
    --where 0.55,0.1,0.35,0.25 --samples 32
  dissect insert runs/progan_scenes-layer5 --class cloud --where class:sky
  dissect insert runs/progan_scenes-layer5 --class tree --samples 16
  dissect insert runs/progan_scenes-layer5 --class tree \\
    --where 0.1,0.5,0.2,0.3 --level 0.005
  dissect insert runs/progan_scenes-layer5 --class tree --where mask.png@128
""",
    "scan": """
  dissect scan runs/progan_scenes-layer5 --class tree --samples 16
  dissect scan runs/both --class tree --layer layer7 --samples 32
""",
    "artifacts": """
  dissect artifacts runs/progan_scenes-layer5
  dissect artifacts --model progan_scenes --layer 5 --detector realism
  dissect artifacts runs/progan_scenes-layer5 --detector flagged --flags bad.txt
  dissect artifacts runs/mine-up3 --detector metric --reference photos
""",
    "repair": """
  dissect repair runs/progan_scenes-layer5 --detector rare --top 20
  dissect repair runs/progan_scenes-layer5 --units layer5:12,57 --value zero \\
    --strength 0.5
  dissect repair runs/progan_scenes-layer5 --units suspects.csv \\
    --out repaired.pth
  dissect repair runs/both --detector realism --top 8 --one-by-one
  dissect repair --checkerboard --model dcgan_scenes --method resize
  dissect repair runs/dcgan_scenes-checkup --checkerboard --layer main.9 \\
    --layer main.12 --finetune-minutes 2
""",
    "checkup": """
  dissect checkup dcgan_scenes
  dissect checkup dcgan_scenes_resize --samples 1000 --json
  dissect checkup g.pth --reference photos --critic mynet:discriminator
  dissect checkup mynet:make --weights g.pt --latent normal:128
  dissect checkup stain_transfer.pth --inputs slides --tiles 4
""",
    "diversity": """
  dissect diversity progan_scenes
  dissect diversity g.pth --reference photos \\
    --segmenter torchvision:lraspp_mobilenet_v3_large --json
""",
    "fitness": """
  dissect fitness progan_scenes dcgan_scenes dcgan_scenes_resize
  dissect fitness checkpoints/G-*.pth --reference photos
  dissect fitness 10000.pt 20000.pt --model mynet:make --latent normal:128 \\
    --reference photos --critic mynet:critic
""",
    "watch": """
  dissect watch checkpoints --reference photos \\
    --segmenter hub:./segformer-ade20k
  dissect watch 'run/G-*.pth' --reference scenes --segmenter scenes --once
  dissect watch run --model mynet:make --latent normal:128 --layer up3 \\
    --reference photos --segmenter hub:./mine
""",
    "power": """
  dissect power runs/progan_scenes-layer5
  dissect power runs/progan_scenes-layer5 --width 0.01 --power 0.9
""",
    "compare": """
  dissect compare runs/progan_scenes-layer5 runs/progan_scenes-layer7
  dissect compare runs/step-10000:layer4 runs/step-20000:layer4 --out comparison
""",
    "report": """
  dissect report runs/progan_scenes-layer5
  dissect report runs/progan_scenes-layer5 --single-file
  dissect report runs
""",
    "models": """
  dissect models
  dissect models --detail progan_scenes
""",
    "inspect": """
  dissect inspect progan_scenes
  dissect inspect stylegan2-ffhq.pkl
  dissect inspect train.py:Generator --arg nz=100 --weights g.pt
  dissect inspect horse2zebra.pth --inputs photos
""",
    "latents": """
  dissect latents interpolate progan_scenes --samples 0..3
  dissect latents directions progan_scenes --method sefa --strength 3
""",
    "latents interpolate": """
  dissect latents interpolate progan_scenes --samples 0..3
""",
    "latents arithmetic": """
  dissect latents arithmetic progan_scenes --formula '3,4,5 - 7,8 + 9'
""",
    "latents mix": """
  dissect latents mix stylegan2-ffhq.pkl --truncation 0.7 \\
    --samples 0..3 --across 4..8 --crossover 4
""",
    "latents truncation": """
  dissect latents truncation stylegan2-ffhq.pkl --psi 0,0.5,0.7,1
""",
    "latents directions": """
  dissect latents directions progan_scenes --method sefa --strength 3
""",
    "latents path-length": """
  dissect latents path-length stylegan2-ffhq.pkl --space z --pairs 10000
""",
    "completion": """
  bash: echo 'eval "$(dissect completion bash)"' >> ~/.bashrc
  zsh:  echo 'eval "$(dissect completion zsh)"' >> ~/.zshrc
  fish: dissect completion fish > ~/.config/fish/completions/dissect.fish
""",
    "segmenters": """
  dissect segmenters
""",
    "scenes": """
  dissect scenes --n 1000 --out scenes
""",
}


def examples(command: str) -> str:
    """The examples of a command, marked so that click keeps their lines."""
    return f"\b\nExamples:{_EXAMPLES[command].rstrip()}"
