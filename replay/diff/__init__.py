"""Comparing what two builds answered: bytes become trees, trees differ, differences are judged by noise.

Pure: no clock, file, socket or unseeded random in this room.
"""
