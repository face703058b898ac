"""What an experiment is: a network, how it is trained, and the figure it has to meet."""

from dataclasses import dataclass

from helpers.experiments.profiles import Profile
from helpers.training.optim import Recipe


@dataclass(frozen=True)
class Published:
    """A figure of an earlier report, and which network had it.

    mse       test MSE on scale S; in report 003 that of R, G, B in -1..1
    accuracy  report 003's share of values within 12 of 255, else None
    """

    mse: float
    network: str
    accuracy: float | None = None


@dataclass(frozen=True)
class Sized:
    """An option of a network that the profile decides, by the field's name."""

    field: str


@dataclass(frozen=True)
class Experiment:
    """A network with its recipe.

    network, options  what nets.build takes
    length            the field of Profile that holds its number of epochs; the most of
                      them, where the recipe has a number of its own
    recipe            everything else about its training
    published         the nearest figure of an earlier report, or None
    fresh             augment anew in each epoch, in place of the fixed set; as many images
                      are seen
    copies            size of the fixed set in copies of the training part; 0: the profile's
    scale_brightness  whether copies are darkened, as the assignment asks
    random_affine  fresh images are zoomed, shifted and turned, in place of cropped
    first             the experiment whose trained network this one takes over, or ""
    is_study          trained on gray and RGB (`study`), not on the course's L* and a*, b*
    """

    network: str
    options: dict
    length: str
    recipe: Recipe
    published: Published | None = None
    fresh: bool = False
    copies: int = 0
    scale_brightness: bool = True
    random_affine: bool = False
    first: str = ""
    is_study: bool = False

    def options_for(self, profile: Profile) -> dict:
        """The options of nets.build in a profile."""
        return {
            name: getattr(profile, value.field) if isinstance(value, Sized) else value
            for name, value in self.options.items()
        }

    def epochs_for(self, profile: Profile) -> int:
        """Passes over the training images that a profile asks for."""
        epochs = getattr(profile, self.length) * (profile.copies if self.fresh else 1)
        return min(epochs, self.recipe.num_epochs or epochs)

    def copies_for(self, profile: Profile) -> int:
        """Copies of the training part in the fixed set; 1 where it is augmented anew."""
        return 1 if self.fresh else self.copies or profile.copies
