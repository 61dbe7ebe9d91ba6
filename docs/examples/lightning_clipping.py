"""Let Lightning clip with clipcore: one method of the module.

    python docs/examples/lightning_clipping.py

``Trainer(gradient_clip_val=...)`` stays where it was; the method is handed its value.
"""

import logging
import math
import warnings

import lightning
import torch

from clipcore.integrations.torch import clip_grad_norm_

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Regression(lightning.LightningModule):
    """A small network on noisy data."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        self.norms = []

    def training_step(self, batch, _index):
        """Return the loss of one batch."""
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.network(inputs), targets)

    def configure_optimizers(self):
        """Return the optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.05)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val, **_):
        """Clip exactly, and keep the norm before."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = clip_grad_norm_(parameters, gradient_clip_val or math.inf)
        self.log("gradient_norm", norm.float())
        self.norms.append(float(norm))


lightning.seed_everything(0, verbose=False)
inputs = torch.randn(256, 8)
data = torch.utils.data.TensorDataset(inputs, 3 * inputs.sum(1, keepdim=True))
model = Regression()
trainer = lightning.Trainer(
    max_epochs=3,
    gradient_clip_val=0.5,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=32))
assert float(trainer.callback_metrics["gradient_norm"]) > 0
print(
    f"norm {max(model.norms):.3f} to {min(model.norms):.3f} over {len(model.norms)} steps, "
    f"limit {trainer.gradient_clip_val}"
)
