"""What a network looked at: class-activation maps, split attention at work, and whether the maps mean something."""
