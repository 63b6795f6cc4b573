"""A planner for console games, which knows none of them: it tries sequences of actions in the emulator and does the best.

Every EVERY steps it looks HORIZON steps ahead under what is left of its last plan, each action held, and some random
sequences. A sequence is worth the discounted signs of its rewards, less one for every life; the first of equal ones
wins, so that nothing is done where nothing is gained. Where none gains anything, each action is held for FAR steps. The
emulator's random numbers are not part of the states it goes back to: what will repeat an action is not known in advance.
"""

import random

EVERY, HORIZON, FAR, DRAWN, LONGEST, DISCOUNT = 3, 20, 64, 8, 9, 0.98


class Planner:
    """Plans for `ale`, whose step is `skip` frames of one of `actions`; the same plans for the same seed and game."""

    def __init__(self, ale, actions, skip, seed):
        self.ale, self.actions, self.skip = ale, actions, skip
        self.random, self.plan, self.age = random.Random(seed), [], 0

    def advise(self):
        """Number of the action to do now; asked once before every step."""
        if self.age == EVERY or not self.plan:
            self.plan, self.age = self.best(self.plan[self.age :]), 0
        self.age += 1
        return self.plan[self.age - 1]

    def best(self, left):
        numbers = range(len(self.actions))
        near = [left + left[-1:] * (HORIZON - len(left))] if left else []
        near += [[a] * HORIZON for a in numbers] + [self.drawn() for _ in range(DRAWN)]
        state = self.ale.cloneState()
        values = [self.value(plan, state) for plan in near]
        if max(values) <= 0:
            far = [[a] * FAR for a in numbers]
            far_values = [self.value(plan, state) for plan in far]
            if max(far_values) > 0:
                near, values = far, far_values
        return near[values.index(max(values))]

    def drawn(self):
        plan = []
        while len(plan) < HORIZON:
            plan += [int(self.random.random() * len(self.actions))] * (1 + int(self.random.random() * LONGEST))
        return plan[:HORIZON]

    def value(self, plan, state):
        ale, total, weight = self.ale, 0.0, 1.0
        lives = ale.lives()
        for action in plan:
            reward = 0.0
            for _ in range(self.skip):
                reward += ale.act(self.actions[action])
                if ale.game_over():
                    break
            lost, lives = lives - ale.lives(), ale.lives()
            total += weight * ((reward > 0) - (reward < 0) - max(0, lost))
            if ale.game_over():
                break
            weight *= DISCOUNT
        ale.restoreState(state)
        return total


