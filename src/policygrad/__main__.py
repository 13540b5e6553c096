"""`python -m policygrad` is `policygrad`."""

from policygrad.cli import main

raise SystemExit(main())
