"""
=====================================
Simple images score high: Glow on OOD
=====================================
"""
import numpy as np
