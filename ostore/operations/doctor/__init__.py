"""Find everything about a store that would surprise a person later. The checks are pure: facts in, findings out."""
