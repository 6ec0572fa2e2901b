"""The page that onboarding leaves: what was found, what is wrong with it, what to do next."""
