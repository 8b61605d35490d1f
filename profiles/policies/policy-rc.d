#!/bin/sh
# Shown in place of a tree's own by the profile image: no service's script is to be run.
exit 101
