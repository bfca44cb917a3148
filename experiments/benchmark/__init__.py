"""Robust compression: which method keeps most accuracy under attack at the same bytes, multiply-adds and time?"""
