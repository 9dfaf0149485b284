"""Conformance checks that anyone can run on a policy, reward or force field of their own.

    from atomrl.testing import check_policy
    check_policy(my_policy, prompts, num_steps=20)

Each check raises AssertionError with the property that does not hold.
"""

from atomrl.testing.force_fields import check_crystal_force_field, check_force_field
from atomrl.testing.policies import check_policy
from atomrl.testing.rewards import check_reward

__all__ = ["check_crystal_force_field", "check_force_field", "check_policy", "check_reward"]
