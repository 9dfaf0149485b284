"""An import that lacks an extra says which one."""

import pytest

from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra


def test_a_missing_package_names_its_extra():
    with pytest.raises(UserError, match=r"no_such_package.*pip install 'atomrl\[crystals\]'"), extra("crystals"):
        import no_such_package.inside  # noqa: F401


def test_our_own_mistakes_are_not_blamed_on_an_installation():
    with pytest.raises(ModuleNotFoundError), extra("crystals"):
        import atomrl.no_such_module  # noqa: F401
