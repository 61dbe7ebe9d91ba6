"""Train with clipped gradients, then a Wasserstein GAN whose critic stays in its range.

    python docs/examples/torch_training.py

The limit on the gradients' norm, and the range of the critic's weights, hold exactly at every step.
"""

import torch

from clipcore.integrations.torch import attach_weight_clipping, clip_grad_norm_, clip_weights_

torch.manual_seed(0)

# A network on data with a few wild targets: single batches would throw it far off.
inputs = torch.randn(512, 8)
targets = inputs.square().sum(1, keepdim=True)
targets[::50] *= 50

model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
losses, norms = [], []
for _ in range(5):
    for batch in torch.randperm(512).split(32):
        loss = torch.nn.functional.huber_loss(model(inputs[batch]), targets[batch], delta=50.0)
        optimizer.zero_grad()
        loss.backward()
        norms.append(clip_grad_norm_(model.parameters(), max_norm=10.0))
        optimizer.step()
        losses.append(loss.detach())
first, last = (float(torch.stack(part).mean()) for part in (losses[:16], losses[-16:]))
print(f"loss {first:.3f} to {last:.3f}, {sum(norm > 10 for norm in norms)} of {len(norms)} steps clipped")

# The critic is clipped after each of its steps, and so whenever the generator sees it.
critic = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.LeakyReLU(0.2), torch.nn.Linear(32, 1))
generator = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
critic_optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-4)
generator_optimizer = torch.optim.RMSprop(generator.parameters(), lr=5e-4)
clip_weights_(critic, -0.01, 0.01)  # before the first step
attach_weight_clipping(critic_optimizer, -0.01, 0.01)
inside = 0
for _ in range(20):
    for _ in range(5):
        real, fake = 2 + torch.randn(64, 2), generator(torch.randn(64, 4)).detach()
        critic_optimizer.zero_grad()
        (critic(fake).mean() - critic(real).mean()).backward()
        critic_optimizer.step()
    inside += all(float(weight.detach().abs().max()) <= 0.01 for weight in critic.parameters())
    generator_optimizer.zero_grad()
    (-critic(generator(torch.randn(64, 4))).mean()).backward()
    generator_optimizer.step()
assert inside == 20
print(f"critic inside [-0.01, 0.01] at all {inside} steps of the generator")
