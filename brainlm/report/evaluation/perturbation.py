def section(material):
    return None
