"""Published names of the policy that is trained."""
